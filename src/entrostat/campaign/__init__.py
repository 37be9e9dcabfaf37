"""Campaigns: campaign rules, hand-over, and the protocol that an engine implements."""

from entrostat.campaign.care import Care, CareV1, CareV2
from entrostat.campaign.crest import Crest
from entrostat.campaign.engine import (
    CampaignTrace,
    Checkpoint,
    Engine,
    Evaluate,
    GoOn,
    Order,
    Plan,
    Progress,
    Stop,
)
from entrostat.campaign.single import Campaign, CampaignOutcome, run_campaign
from entrostat.campaign.stopping import Controller, EarlyStop, Naive, StopRule
from entrostat.runs import Trajectory

__all__ = [
    "Campaign",
    "CampaignOutcome",
    "CampaignTrace",
    "Care",
    "CareV1",
    "CareV2",
    "Checkpoint",
    "Controller",
    "Crest",
    "EarlyStop",
    "Engine",
    "Evaluate",
    "GoOn",
    "Naive",
    "Order",
    "Plan",
    "Progress",
    "Stop",
    "StopRule",
    "Trajectory",
    "run_campaign",
]
