"""Networks: weights files, devices, and the architectures rearranged for inference."""
