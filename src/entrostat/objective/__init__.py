"""Clip rules, advantages and per-token objectives: pure functions of tensors."""
