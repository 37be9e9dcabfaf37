"""Other trainers under an entropy controller: one file per host, imported by name, so that no host needs another.

The hosts offer three tiers, and each file says which one its function reaches:
    A   ln p of the sampled tokens: clip rules, schedules over the steps
    B   A and the entropy H: strategies and bonuses that follow the entropy, regions
    C   B and the correction C = sum p^2 (ln p + H): polarity, entropy flow, weights by polarity
"""
