"""Campaigns: stop rules, hand-over, and the protocol an engine fulfils."""
