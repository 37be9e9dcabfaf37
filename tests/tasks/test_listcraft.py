"""listcraft: what its tasks promise to a testbed."""

import itertools
import random

import pytest

from entrostat.tasks import Call, Task, TaskError, listcraft


def program_of(task: Task) -> listcraft.Program:
    return listcraft.program_named(task.id.removeprefix("listcraft/"))


def run_trusted(source: str, xs: list[int]) -> object:
    """Run a reference solution, which the package itself wrote."""
    names: dict[str, object] = {}
    exec(source, names)
    return names[listcraft.ENTRY_POINT](list(xs))  # type: ignore[operator]


@pytest.mark.parametrize("split", ["train", "select", "report"])
def test_every_wording_and_form_of_a_task_meets_its_tests(split):
    rng = random.Random(0)
    for task in listcraft.tasks(split, 40, levels=listcraft.LEVELS):
        for _ in range(5):
            source = program_of(task).solution(rng)
            for call in task.tests:
                assert run_trusted(source, call.args[0]) == call.expected, (task.id, source)


def test_all_expressions_of_an_operation_mean_the_same():
    rng = random.Random(1)
    inputs = [[], [3], *([rng.randint(-9, 19) for _ in range(8)] for _ in range(20))]
    for op, xs in itertools.product(listcraft.OPERATIONS, inputs):
        values = {repr(eval(expression, {"xs": list(xs)})) for expression in op.expressions}
        assert len(values) == 1, (op.name, xs, values)


def test_no_two_splits_share_a_behaviour_even_across_seeds():
    behaviours = {
        split: {
            repr(listcraft.behaviour(program))
            for seed in (0, 1)
            for program, _ in zip(listcraft.programs(split, seed, listcraft.LEVELS), range(300), strict=False)
        }
        for split in ("train", "select", "report")
    }
    for one, other in itertools.combinations(behaviours.values(), 2):
        assert not one & other


def test_the_train_split_holds_thousands_of_distinct_tasks():
    names = {program.name for program, _ in zip(listcraft.programs("train"), range(2000), strict=False)}
    assert len(names) == 2000


def test_same_seed_same_tasks_and_another_seed_others():
    assert listcraft.tasks("report", 30) == listcraft.tasks("report", 30)
    assert listcraft.tasks("report", 30) != listcraft.tasks("report", 30, seed=1)


def test_hidden_tests_catch_programs_that_do_a_neighbouring_thing():
    missed = total = 0
    for task in listcraft.tasks("report", 60):
        program = program_of(task)
        own = listcraft.behaviour(program)
        for neighbour in program.neighbours():
            if listcraft.behaviour(neighbour) != own:
                total += 1
                missed += all(neighbour.run(call.args[0]) == call.expected for call in task.tests)
    assert missed / total < 0.005, (missed, total)


def test_every_operation_of_a_task_matters():
    for task in listcraft.tasks("select", 60):
        program = program_of(task)
        for shorter in program.shortened():
            assert listcraft.behaviour(shorter) != listcraft.behaviour(program), task.id


def test_a_prompt_is_a_comment_so_that_prompt_and_solution_make_one_python_file():
    for task in listcraft.tasks("train", 20):
        compile(task.prompt + program_of(task).solution(random.Random(0)), task.id, "exec")


def test_levels_are_the_number_of_operations_and_an_unknown_one_is_refused():
    assert {task.level for task in listcraft.tasks("train", 30, levels=(2, 4))} == {2, 4}
    with pytest.raises(ValueError, match=r"tasks.levels: got \[7\]"):
        listcraft.tasks("train", 1, levels=(7,))


def test_asking_for_more_tasks_than_a_level_holds_says_how_many_there_are():
    with pytest.raises(ValueError, match=r"1000 tasks asked for, but split 'report' holds \d+ at levels \[1\]"):
        listcraft.tasks("report", 1000, levels=(1,))


def test_a_task_without_tests_is_refused():
    with pytest.raises(TaskError, match="task 'x': tests is empty"):
        Task(id="x", prompt="", entry_point="solve", tests=())


def test_a_task_hash_follows_everything_that_grading_depends_on():
    task = Task(id="x", prompt="p", entry_point="solve", tests=(Call(args=(1,), expected=2),))
    others = [
        Task(id="x", prompt="p", entry_point="solve", tests=(Call(args=(1,), expected=2.0),)),
        Task(id="x", prompt="p", entry_point="other", tests=(Call(args=(1,), expected=2),)),
        Task(id="x", prompt="p", entry_point="solve", tests=(Call(args=(1,), expected=2),), atol=1e-6),
    ]
    assert len({task.content_hash(), *(other.content_hash() for other in others)}) == 4
