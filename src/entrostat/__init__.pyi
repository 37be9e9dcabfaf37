# ruff: noqa: F403
# The names of __init__.py for type checkers, which do not follow its __getattr__; a test holds the two together.
from entrostat.campaign import CareV1 as CareV1
from entrostat.campaign import CareV2 as CareV2
from entrostat.campaign import Crest as Crest
from entrostat.campaign import EarlyStop as EarlyStop
from entrostat.campaign import Naive as Naive
from entrostat.control import *
from entrostat.diagnosis import Detector as Detector
from entrostat.diagnosis import Diagnosis as Diagnosis
from entrostat.diagnosis import Finding as Finding
from entrostat.diagnosis import Log as Log
from entrostat.diagnosis import LogError as LogError
from entrostat.diagnosis import Remedy as Remedy
from entrostat.diagnosis import Watchdog as Watchdog
from entrostat.diagnosis import diagnose as diagnose
from entrostat.diagnosis import read_log as read_log
from entrostat.engine.policy import load_policy as load_policy
from entrostat.engine.scoring import score_completions as score_completions
from entrostat.engine.scoring import score_file as score_file
from entrostat.engine.study import run_study as run_study
from entrostat.engine.train import train as train
from entrostat.entropy import Region as Region
from entrostat.entropy import TurnSums as TurnSums
from entrostat.entropy import entropy_flow as entropy_flow
from entrostat.entropy import polarity as polarity
from entrostat.entropy import prompt_information as prompt_information
from entrostat.entropy import regions as regions
from entrostat.entropy import sensitivity as sensitivity
from entrostat.entropy import turn_numbers as turn_numbers
from entrostat.entropy import turn_sums as turn_sums
from entrostat.errors import EntrostatError as EntrostatError
from entrostat.grading import CodeGrader as CodeGrader
from entrostat.grading import MathGrader as MathGrader
from entrostat.grading import Outcome as Outcome
from entrostat.grading import PuzzleGrader as PuzzleGrader
from entrostat.grading import RayGrader as RayGrader
from entrostat.grading import RemoteGrader as RemoteGrader
from entrostat.grading import Verdict as Verdict
from entrostat.grading import extract_code as extract_code
from entrostat.grading import grade_file as grade_file
from entrostat.objective import *
from entrostat.recipe import Recipe as Recipe
from entrostat.recipe import RecipeError as RecipeError
from entrostat.recipe import StudyRecipe as StudyRecipe
from entrostat.recipe import load_recipe as load_recipe
from entrostat.recipe import load_study as load_study
from entrostat.report import build_report as build_report
from entrostat.report.study import build_study_report as build_study_report
from entrostat.runs import CollapseReport as CollapseReport
from entrostat.runs import Run as Run
from entrostat.runs import RunError as RunError
from entrostat.runs import Trajectory as Trajectory
from entrostat.runs import collapse_report as collapse_report
from entrostat.runs import noise_floor as noise_floor
from entrostat.runs import pass_at_k as pass_at_k
from entrostat.runs import pass_hat_k as pass_hat_k
from entrostat.tasks import *
from entrostat.tokens import *

__version__: str
