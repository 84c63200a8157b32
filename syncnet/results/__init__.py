"""Result files: their paths and formats."""
