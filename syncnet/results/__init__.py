"""Result files: where they lie, and their forms."""
