"""The losses of other trainers under entrostat's control: one file per host, so that no host needs another.

A host's own loss runs; `steering` says what is set in it. Each file names its tier, by what the host passes on:
    A   ln p of the sampled tokens: clip rules, schedules over the steps, weightings by ln p
    B   A and the entropy H: whatever follows the entropy, weightings by H
    C   B and the logits: every weighting
"""
