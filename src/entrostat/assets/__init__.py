"""What the package carries: the embedded default policy, made by scripts/pretrain.py."""
