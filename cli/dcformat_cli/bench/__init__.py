"""What `dcformat bench` measures with: other runtimes under one interface, and their timing side by side."""
