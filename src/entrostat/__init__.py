"""Entropy control and collapse prevention for reinforcement learning with verifiable rewards (RLVR)."""
