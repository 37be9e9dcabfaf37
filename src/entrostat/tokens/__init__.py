"""Per-token statistics of the policy's distribution."""
