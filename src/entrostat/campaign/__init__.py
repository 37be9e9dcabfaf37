"""Campaigns: stop rules, hand-over, and the protocol an engine fulfils."""

from entrostat.campaign.engine import CampaignTrace, Checkpoint, Engine
from entrostat.campaign.single import CampaignOutcome, run_campaign
from entrostat.campaign.stopping import EarlyStop, Naive, StopRule
from entrostat.runs import Trajectory

__all__ = [
    "CampaignOutcome",
    "CampaignTrace",
    "Checkpoint",
    "EarlyStop",
    "Engine",
    "Naive",
    "StopRule",
    "Trajectory",
    "run_campaign",
]
