"""The embedded trainer, for a language model or a table of logits."""
