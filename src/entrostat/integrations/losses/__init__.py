"""The losses of other trainers under entrostat's thresholds: one file per host, so that no host needs another.

A host's own loss runs; `steering` says what is set in it. Each file names its tier, by what the host passes on:
    A   ln p of the sampled tokens: clip rules, schedules over the steps
    B   A and the entropy H: strategies that follow the entropy
"""
