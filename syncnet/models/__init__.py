"""Networks: weights files, devices, and the architectures optimised for inference."""
