"""The tabular policy: what is called exact is what enumeration, sampling and finite differences give."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from entrostat.engine.local import Advantages
from entrostat.engine.policy import PolicyError
from entrostat.engine.table import END, Prompts, TablePolicy, expected_gap
from entrostat.recipe import parse_recipe
from entrostat.tasks import listcraft
from entrostat.tasks.listcraft import OPERATIONS, Program
from entrostat.tasks.task import Task
from entrostat.tokens import token_stats

TASKS = listcraft.tasks("train", 3, levels=(1, 2))


def table(states, tasks=TASKS, choices=3, limit=9, start=1.0, seed=4):
    return TablePolicy(Prompts.of(tasks, choices, limit, seed), states, start, spread=1.0, seed=seed)


def completions(policy, number):
    """Every completion of a prompt, as token ids: ended, or cut at the limit."""
    *operations, end = policy.prompts.tokens[number].tolist()
    for length in range(policy.prompts.depth):
        yield from ([*chain, end] for chain in product(operations, repeat=length))
    yield from (list(chain) for chain in product(operations, repeat=policy.prompts.depth))


def scored(policy, number, temperature=1.0):
    """(tokens, probability) of every completion of a prompt, by the logits that the learner sees."""
    whole = list(completions(policy, number))
    width = max(map(len, whole))
    ids = torch.tensor([tokens + [END] * (width - len(tokens)) for tokens in whole])
    mask = torch.arange(width) < torch.tensor([len(tokens) for tokens in whole]).unsqueeze(1)
    prompts = torch.full((len(whole), 1), number)
    with torch.no_grad():
        logits = policy.logits(prompts, torch.ones_like(prompts, dtype=torch.bool), ids, mask)
        logp = (token_stats(logits, ids, temperature).logp * mask).double().sum(1)
    return list(zip(whole, logp.exp().tolist(), strict=True))


def is_right(task, tokens):
    """Whether the chain of operations of an ended completion passes the task's tests, by running it."""
    if tokens[-1] != END:
        return False
    program = Program(tuple(OPERATIONS[token] for token in tokens[:-1]))
    try:
        answers = [program.run(call.args[0]) for call in task.tests]
    except TypeError:  # an operation on a number
        return False
    return all(
        type(a) is type(call.expected) and a == call.expected for a, call in zip(answers, task.tests, strict=True)
    )


@pytest.mark.parametrize("states", ["prefix", "phrase"])
@pytest.mark.parametrize(("limit", "temperature"), [(9, 1.0), (2, 0.7)])
def test_exact_quantities_are_those_of_all_completions_one_by_one(states, limit, temperature):
    policy = table(states, limit=limit)
    with torch.no_grad():
        exact, chances = policy.exact(temperature=temperature), policy.chances(temperature=temperature)
    for number, task in enumerate(TASKS):
        known = scored(policy, number, temperature)
        right = [p for tokens, p in known if is_right(task, tokens)]
        assert sum(p for _, p in known) == pytest.approx(1, abs=1e-5)
        assert float(exact.success[number]) == pytest.approx(sum(right), abs=1e-6)
        assert float(exact.entropy[number]) == pytest.approx(-sum(p * math.log(p) for _, p in known), rel=1e-4)
        assert float(exact.length[number]) == pytest.approx(sum(p * len(tokens) for tokens, p in known), rel=1e-5)
        assert float(exact.truncated[number]) == pytest.approx(sum(p for t, p in known if t[-1] != END), abs=1e-5)
        assert float(exact.pass_at(5)[number]) == pytest.approx(1 - (1 - sum(right)) ** 5, abs=1e-5)
        assert sorted(chances[number][chances[number] > 0].tolist()) == pytest.approx(sorted(right), rel=1e-4)


def test_every_task_has_a_right_completion_and_the_first_policy_prefers_what_is_asked():
    likely, uniform = (table("phrase", start=start).exact().success.detach() for start in (3.0, 0.0))
    assert bool((uniform > 0).all())
    assert float(likely.mean()) > 3 * float(uniform.mean())


@pytest.mark.parametrize("states", ["prefix", "phrase"])
def test_samples_tend_to_the_exact_quantities_and_keep_their_own_probabilities(states):
    policy, n = table(states), 20_000
    rollout = policy.sample(torch.arange(3).repeat_interleave(n), 9, seed=1)
    with torch.no_grad():
        exact = policy.exact()
        logits = policy.logits(rollout.prompts, rollout.prompt_mask, rollout.completions, rollout.mask)
    stats = token_stats(logits, rollout.completions)
    assert torch.allclose(stats.logp[rollout.mask], rollout.old_logp[rollout.mask], atol=1e-5)
    assert torch.allclose(stats.entropy[rollout.mask], rollout.entropy[rollout.mask], atol=1e-5)
    passed = policy.passes(rollout).view(3, n).double().mean(1)
    noise = (passed * (1 - passed) / n).sqrt() + 1e-4
    assert bool(((passed - exact.success).abs() < 4.5 * noise).all())
    assert float(rollout.entropy.sum()) / rollout.token_count == pytest.approx(float(exact.token_entropy), rel=0.01)
    assert rollout.lengths.view(3, n).double().mean(1).tolist() == pytest.approx(exact.length.tolist(), rel=0.02)
    whole = -(rollout.old_logp * rollout.mask).sum(1).view(3, n).double()
    assert whole.mean(1).tolist() == pytest.approx(exact.entropy.tolist(), rel=0.02)


def test_two_policies_sampled_with_one_seed_differ_only_by_their_probabilities():
    one, same, other = table("phrase"), table("phrase"), table("phrase")
    with torch.no_grad():
        other.model.table[:] += 1e-7
    number = torch.zeros(200, dtype=torch.long)
    texts = [policy.sample(number, 9, seed=3).texts for policy in (one, same, other)]
    assert texts[0] == texts[1] == texts[2]
    assert one.sample(number, 9, seed=4).texts != texts[0]
    assert len(set(one.sample(number, 9, seed=4, temperature=0.0).texts)) == 1


@pytest.mark.parametrize("states", ["prefix", "phrase"])
@pytest.mark.parametrize("field", ["success", "entropy", "length"])
def test_gradients_are_those_of_finite_differences(states, field):
    policy = table(states)
    policy.model.double()
    parameter = policy.model.table
    (gradient,) = torch.autograd.grad(getattr(policy.exact(), field).sum(), parameter)
    direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            parameter += sign * 1e-5 * direction
            ends.append(float(getattr(policy.exact(), field).sum()))
            parameter -= sign * 1e-5 * direction
    assert float((gradient * direction).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("advantage", ["grpo", "dr-grpo", "reinforce"])
def test_the_expected_gap_is_that_of_all_groups_one_by_one(advantage):
    judge = Advantages(parse_recipe({"name": "x", "update": {"advantage": advantage}}).update).judge
    chance, size = 0.3, 4
    means = {1.0: 0.0, 0.0: 0.0}
    for others in product((1.0, 0.0), repeat=size - 1):
        weight = math.prod(chance if reward else 1 - chance for reward in others)
        for own in means:
            means[own] += weight * float(judge(torch.tensor([[own, *others]]))[0, 0])
    assert float(expected_gap(judge, torch.tensor([chance]), size)) == pytest.approx(means[1.0] - means[0.0], rel=1e-4)


def test_the_mean_sampled_gradient_tends_to_the_exact_expected_gradient():
    policy = table("phrase")
    judge = Advantages(parse_recipe({"name": "x"}).update).judge
    parameter, n, size = policy.model.table, 4000, 4
    success = policy.exact([0]).success
    (exact,) = torch.autograd.grad((expected_gap(judge, success, size) * success).sum(), parameter)
    rollout = policy.sample(torch.zeros(n * size, dtype=torch.long), 9, seed=5)
    advantages = judge(policy.passes(rollout).float().view(n, size)).flatten()
    logits = policy.logits(rollout.prompts, rollout.prompt_mask, rollout.completions, rollout.mask)
    logp = (token_stats(logits, rollout.completions).logp * rollout.mask).sum(1)
    (sampled,) = torch.autograd.grad((advantages * logp).mean(), parameter)
    assert float((sampled - exact).norm()) < 0.1 * float(exact.norm())


def test_by_prefix_all_logits_are_independent_and_by_phrase_prompts_share_them():
    pair = [TASKS[0], replace(TASKS[0], id=TASKS[0].id)]
    for states, moved in (("prefix", 1), ("phrase", 2)):
        policy = TablePolicy(Prompts.of(pair, 3, 9, seed=0), states, 1.0, 1.0, seed=0)
        with torch.no_grad():
            before = policy.log_probabilities()
            column = policy.prompts.tokens[0, 0] if states == "phrase" else 0
            policy.model.table.view(-1, policy.model.table.shape[-1])[policy.rows[0, 0], column] += 1
            changed = (policy.log_probabilities() != before).any(-1)
        assert int(changed[:, 0].sum()) == moved
        assert bool(changed[0, 0])
        if states == "prefix":
            assert int(changed.sum()) == 1


def test_a_saved_table_is_loaded_by_the_names_of_its_rows(tmp_path):
    old, new = table("phrase", seed=1), table("phrase", tasks=[*TASKS[:2], *listcraft.tasks("report", 2)], seed=2)
    old.save(tmp_path / "kept")
    before, unknown = new.model.table.clone(), [name not in old.model.names for name in new.model.names]
    new.load(tmp_path / "kept")
    assert torch.equal(new.model.table[unknown], before[unknown])
    shared = [name for name in new.model.names if name in old.model.names]
    assert len(shared) > 2
    for name in shared:
        row = new.model.table[new.model.names.index(name)]
        assert torch.equal(row, old.model.table[old.model.names.index(name)])


def test_a_folder_without_the_right_table_is_refused(tmp_path):
    with pytest.raises(PolicyError, match=r"holds no table.safetensors; give a checkpoint of engine tabular"):
        table("phrase").load(tmp_path)
    table("prefix").save(tmp_path / "other")
    with pytest.raises(PolicyError, match=r"rows by prefix of .* logits, but the recipe's have .* by phrase"):
        table("phrase").load(tmp_path / "other")
    (tmp_path / "other" / "table.safetensors").write_bytes(b"not a table")
    with pytest.raises(PolicyError, match=r"cannot be read .*; give a whole checkpoint"):
        table("phrase").load(tmp_path / "other")


def test_tokens_and_tasks_that_the_table_does_not_have_are_refused():
    policy = table("phrase")
    alien = next(number for number in range(END) if number not in policy.prompts.tokens[0])
    one = torch.zeros(1, 1, dtype=torch.long)
    with pytest.raises(PolicyError, match="a token is none that its prompt offers"):
        policy.logits(one, one.bool(), torch.tensor([[alien]]), torch.ones(1, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"table.choices: got 1, but task .* needs 2; raise it"):
        Prompts.of(listcraft.tasks("train", 2, levels=(2,)), 1, 9, seed=0)
    other = Task("own/1", "a prompt", "solve", TASKS[0].tests)
    with pytest.raises(ValueError, match=r"tasks.family: 'own/1' is not of listcraft"):
        Prompts.of([other], 3, 9, seed=0)
