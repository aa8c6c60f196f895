"""EleutherAI's lm-evaluation-harness on models with gates: python -m seer.lm_eval

It is the harness's own command with one more model, `seer`, whose arguments are those of its `hf` and of seer.attach:

  python -m seer.lm_eval --model seer --model_args pretrained=FOLDER,gates=GATES,sparsity=0.9 --tasks hellaswag

With `--sparsity 0,0.5,0.9` (or `--strength LIST`, of a rule that takes one) the model is loaded once and the tasks run at each setting;
0 or `dense` is the model without gates. The table shows what each differs from the first by, with the standard error of the difference
over the same documents; `--output_path FOLDER` keeps it (comparison.json) beside the harness's results of every setting.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import math
import pathlib
import random
import sys
from typing import Optional

import torch

from .attach import attach, detach, record_lists
from .gates import check_folder
from .ops import selection
from .packing import BLOCK, counted

try:
    from lm_eval.api.metrics import mean, mean_stderr, pooled_sample_stderr
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM
except ImportError as error:
    what = f"{error.name} is missing" if isinstance(error, ModuleNotFoundError) else f"lm-eval cannot be imported ({error})"
    what = f"seer.lm_eval: {what}: pip install 'lm-eval[hf]' (or this package's extra, [eval])"
    raise (SystemExit(what) if __name__ == "__main__" else ImportError(what)) from None

ALONE = ("predict_only", "check_integrity", "wandb_args", "trackio_args", "hf_hub_log_args")  # options of one run
SLOW = ("bleu", "chrf", "chrf++", "ter")  # to aggregate: the harness, too, draws them less often
RESAMPLES, FEW = 1000, 100


@register_model("seer")
class SeerLM(HFLM):
    """The harness's `hf` with gates: prompts are read through the blocks that they choose.

    gates: their folder. The rule is that of seer.attach, with sparsity, density (1 - sparsity) or strength; sparsity 0 is the model
    without gates. The rest is HFLM's (pretrained, dtype, device, batch_size, max_length, peft, ...). Log-likelihoods are taken in
    float32 (softmax_dtype), so that small differences show; batches give each request what it gets alone.
    """

    def __init__(self, pretrained, gates: Optional[str] = None, sparsity: Optional[float] = None, density: Optional[float] = None,
                 rule: str = "nz_ratio", strength=None, sink_blocks: int = 0, local_blocks: int = 0, last_dense_rows: int = 0,
                 dense_below: Optional[int] = None, foreign_gates: bool = False, softmax_dtype="float32", **kwargs):
        if density is not None:
            if sparsity is not None:
                raise ValueError(f"seer: sparsity {sparsity} and density {density} are given, want one of them")
            sparsity = 1 - density
        if sparsity is not None and strength is not None:
            raise ValueError(f"seer: strength {strength} and a sparsity or density are given, want one of them")
        if sparsity is None and strength is None:
            raise ValueError("seer: want sparsity=, density= or strength= among the model's arguments; sparsity=0 is dense attention")
        if gates is None and sparsity != 0:
            raise ValueError("seer: want gates=FOLDER among the model's arguments")
        super().__init__(pretrained, softmax_dtype=softmax_dtype, **kwargs)
        self.gates, self.foreign_gates = gates, foreign_gates
        self.fixed = dict(rule=rule, sink_blocks=sink_blocks, local_blocks=local_blocks, last_dense_rows=last_dense_rows)
        self.fixed |= {} if dense_below is None else dict(dense_below=dense_below)
        self.choose(sparsity=sparsity, strength=strength)

    def choose(self, sparsity: Optional[float] = None, strength=None) -> None:
        """How the requests that follow are read. Sparsity 0: by the model without gates."""
        self.listed = self.visible = 0
        self.chosen = "dense" if sparsity == 0 else {**self.fixed, "sparsity": sparsity, "strength": strength}
        has_gates = getattr(self.model, "seer", None) is not None
        if self.chosen == "dense":
            if has_gates:
                detach(self.model)
        elif has_gates:
            self.model.seer.update(sparsity=sparsity, strength=strength)
        else:
            attach(self.model, self.gates, foreign_gates=self.foreign_gates, **self.chosen)

    @property
    def density(self) -> float:
        """Share of the causal blocks that was computed since `choose`, of the layers and prompts that are not dense anyway."""
        return self.listed / self.visible if self.visible else 1.0

    @contextlib.contextmanager
    def counted(self):
        if self.chosen == "dense":
            yield
            return
        with record_lists(self.model) as passes:
            yield
        for layers in passes:
            for lists in layers.values():
                self.listed += lists.listed
                self.visible += int(lists.packing.visible().sum()) * lists.count.shape[0]

    def _model_call(self, inps, attn_mask=None, labels=None, last: int = 0):
        """Logits of the last tokens (0: all)."""
        autocast = torch.autocast(self.device.type, self.mixed_precision_dtype, enabled=self.mixed_precision_dtype is not None)
        with self.counted(), torch.no_grad(), autocast:
            return self.model(inps, attention_mask=attn_mask, logits_to_keep=last, use_cache=False).logits

    def _model_generate(self, context, max_length, stop, **generation_kwargs):
        with self.counted():
            return super()._model_generate(context, max_length, stop, **generation_kwargs)

    def _loglikelihood_tokens(self, requests, disable_tqdm=False, override_bs=None):
        """As HFLM's, with a mask: padding would count in the choice of blocks. Logits of contexts are not computed.

        requests: (key, tokens of the context, of the continuation) -> (log-likelihood, whether it is the greedy one) of each.
        """
        from tqdm import tqdm
        by_input: dict[tuple, list[int]] = {}  # requests that differ in their last token alone have one
        cut = 0
        for number, (_, context, continuation) in enumerate(requests):
            if len(continuation) > self.max_length:
                raise ValueError(f"seer: a continuation has {len(continuation)} tokens, more than max_length, {self.max_length}")
            cut += len(context) + len(continuation) > self.max_length + 1
            tokens = (context + continuation)[-self.max_length - 1:-1]
            by_input.setdefault(tuple(tokens), []).append(number)
        if cut:
            print(f"seer.lm_eval: {cut} of {counted(len(requests), 'request')} {'is' if cut == 1 else 'are'} longer than max_length, {self.max_length}, and "
                  f"{'loses its' if cut == 1 else 'lose their'} first tokens", file=sys.stderr)
        inputs = sorted(by_input, key=len, reverse=True)
        size = override_bs or self.batch_size
        if size == "auto" and inputs:
            longest = requests[by_input[inputs[0]][0]]
            size = self.batch_sizes[0] = self._detect_batch_size([longest])
        answers: list = [None] * len(requests)
        bar = tqdm(total=len(requests), disable=disable_tqdm or self.rank != 0, desc="Running loglikelihood requests")
        for begin in range(0, len(inputs), int(size) if inputs else 1):
            batch = inputs[begin:begin + int(size)]
            width, first = len(batch[0]), len(batch[0])  # of the logits that are wanted
            ids, mask = (torch.zeros(len(batch), width, dtype=torch.long) for _ in range(2))
            for row, tokens in enumerate(batch):
                ids[row, :len(tokens)], mask[row, :len(tokens)] = torch.tensor(tokens), 1
                first = min(first, *(len(tokens) - len(requests[number][2]) for number in by_input[tokens]))
            is_padded = self.chosen != "dense" and len(batch[-1]) < width
            logits = self._model_call(ids.to(self.device), mask.to(self.device) if is_padded else None, last=width - first)
            for row, tokens in enumerate(batch):
                for number in by_input[tokens]:
                    key, _, continuation = requests[number]
                    end, want = len(tokens) - first, torch.tensor(continuation, device=logits.device)
                    of = logits[row, end - len(want):end].log_softmax(-1, dtype=self.softmax_dtype)
                    answers[number] = float(of.gather(1, want[:, None]).sum()), bool((of.argmax(-1) == want).all())
                    if key is not None:
                        self.cache_hook.add_partial("loglikelihood", key, answers[number])
                    bar.update(1)
        bar.close()
        return answers

    def get_model_info(self) -> dict:
        return {**super().get_model_info(), "gates": self.gates, "seer": self.chosen, "density": self.density}


# ---- Several settings side by side ---------------------------------------------------------------


def compare(args: argparse.Namespace, name: str, values: list[float]) -> dict:
    """The harness's command `args` at each value of `name` (sparsity or strength) -> what comparison.json holds."""
    import lm_eval
    from lm_eval.api.registry import get_model
    from lm_eval.config.evaluate_config import EvaluatorConfig
    from lm_eval.utils import handle_non_serializable
    cfg = EvaluatorConfig.from_cli(args)
    if cfg.model not in ("seer", "hf"):
        raise ValueError(f"--{name} with a list is for --model seer, not {cfg.model}")
    refused = [option for option in ALONE if getattr(cfg, option)]
    if refused:
        raise ValueError(f"--{refused[0]} does not go with --{name}: give that as an argument of the model, {name}={values[-1]:g}")
    fixed = [key for key in ("sparsity", "density", "strength") if cfg.model_args.get(key) is not None]
    if fixed:
        raise ValueError(f"{fixed[0]} is among --model_args, and --{name} has a list: want one of them")
    given, rule = {**cfg.model_args, "sparsity": 0, "strength": None}, cfg.model_args.get("rule", "nz_ratio")
    if "gates" not in given and any(values):
        raise ValueError("want gates=FOLDER in --model_args")
    for value in values:
        if value:
            selection(*((value, rule, None) if name == "sparsity" else (None, rule, value)), 0, 0, 0, 0, BLOCK)
    folder = pathlib.Path(cfg.output_path) if cfg.output_path else None
    if folder is not None and folder.suffix == ".json":
        raise ValueError(f"--output_path is {folder}, want a folder: each setting has a file")
    if folder is not None:
        check_folder(folder)
    manager = cfg.process_tasks(cfg.metadata)
    loaded = manager.load(cfg.tasks)
    manager.load = lambda tasks: loaded  # one load of the data, too
    lm = get_model("seer").create_from_arg_obj(given, dict(batch_size=cfg.batch_size, max_batch_size=cfg.max_batch_size, device=cfg.device))
    choose = lambda value: lm.choose(**{name: value}) if value else lm.choose(sparsity=0)
    for value in values:  # gates that do not fit are refused before the first setting has run
        choose(value)
    seeds = cfg.seed or [None] * 4
    runs = {}
    for value in values:
        label = f"{name} {value:g}" if value else "dense"
        choose(value)
        print(f"seer.lm_eval: {label}", file=sys.stderr, flush=True)
        results = lm_eval.simple_evaluate(
            model=lm, model_args=cfg.model_args, tasks=cfg.tasks, num_fewshot=cfg.num_fewshot, batch_size=cfg.batch_size, device=cfg.device,
            use_cache=cfg.use_cache and f"{cfg.use_cache}_{label.replace(' ', '_')}", limit=cfg.limit, samples=cfg.samples,
            cache_requests=cfg.cache_requests.get("cache_requests", False), write_out=cfg.write_out, log_samples=True,
            system_instruction=cfg.system_instruction, apply_chat_template=cfg.apply_chat_template,
            fewshot_as_multiturn=cfg.fewshot_as_multiturn, gen_kwargs=cfg.gen_kwargs, task_manager=manager, metadata=cfg.metadata,
            random_seed=seeds[0], numpy_random_seed=seeds[1], torch_random_seed=seeds[2], fewshot_random_seed=seeds[3],
            confirm_run_unsafe_code=cfg.confirm_run_unsafe_code)
        if results is None:  # another process than the first
            continue
        runs[label] = results
        if folder is not None:
            kept = results if cfg.log_samples else {key: value for key, value in results.items() if key != "samples"}
            write_json(folder / f"{label.replace(' ', '_')}.json", kept, handle_non_serializable)
    if not runs:
        return {}
    table = {"settings": {label: {"density": run["config"]["density"]} for label, run in runs.items()}, "rows": rows_of(runs, loaded["tasks"])}
    if folder is not None:
        write_json(folder / "comparison.json", {"model_args": cfg.model_args, **table}, handle_non_serializable)
    return table


def rows_of(runs: dict, tasks: dict) -> list[dict]:
    """One for each metric of each task and group: its value at every setting, and the difference from the first with its standard error."""
    (base, first), *_ = runs.items()
    rows = []
    for task, metrics in {**first["results"], **first.get("groups", {})}.items():
        for key in sorted(metrics):
            metric, _, rule = key.partition(",")
            if not rule or metric.endswith("_stderr") or not isinstance(metrics[key], (int, float)):
                continue
            row = {"task": task, "metric": metric, "filter": rule, "higher_is_better": first["higher_is_better"].get(task, {}).get(metric),
                   "values": {}}
            for label, run in runs.items():
                found = run["results"].get(task) or run["groups"][task]
                error = found.get(f"{metric}_stderr,{rule}")
                row["values"][label] = {"value": found[key], "stderr": error if isinstance(error, float) else None}
                if label != base:
                    row["values"][label] |= {"difference": found[key] - metrics[key],
                                             "difference_stderr": paired_stderr(first, run, task, metric, rule, tasks)}
            rows.append(row)
    return rows


def paired_stderr(first: dict, other: dict, task: str, metric: str, rule: str, tasks: dict) -> Optional[float]:
    """Standard error of the difference of two runs over the same documents. Of a group it is pooled from its tasks."""
    children = first["group_subtasks"].get(task, [])
    if children:
        parts = [paired_stderr(first, other, child, metric, rule, tasks) for child in children]
        sizes = [number_of(first, child) for child in children]
        return None if any(x is None for x in parts) else float(pooled_sample_stderr(parts, sizes))
    values = []
    for run in (first, other):
        values.append([(x["doc_id"], x["prompt_hash"], x[metric]) for x in run["samples"][task] if x["filter"] == rule and metric in x])
    if [x[:2] for x in values[0]] != [x[:2] for x in values[1]]:
        raise ValueError(f"the documents of {task} differ from setting to setting")
    pairs, aggregate = [(a[2], b[2]) for a, b in zip(*values)], tasks[task].aggregation().get(metric, mean)
    if len(pairs) < 2:
        return None
    if aggregate is mean:
        return float(mean_stderr([float(b) - float(a) for a, b in pairs]))
    draw, found = random.Random(1), []
    for _ in range(FEW if metric in SLOW else RESAMPLES):
        a, b = zip(*draw.choices(pairs, k=len(pairs)))
        found.append(aggregate(list(b)) - aggregate(list(a)))
    middle = sum(found) / len(found)
    return math.sqrt(sum((x - middle) ** 2 for x in found) / (len(found) - 1))


def number_of(run: dict, task: str) -> int:
    """Documents of a task, or of a group's tasks together."""
    children = run["group_subtasks"].get(task, [])
    return sum(number_of(run, child) for child in children) if children else run["n-samples"][task]["effective"]


def table_of(found: dict) -> str:
    """Markdown: dense beside sparse."""
    labels = list(found["settings"])
    head = ["task", "metric", ""]
    for label in labels:
        density = found["settings"][label]["density"]
        head.append(label if label == "dense" else f"{label} ({density:.3f} of the blocks)")
        head += [] if label == labels[0] else ["difference"]
    lines, last = [head, ["---"] * 3 + ["---:"] * (len(head) - 3)], None
    for row in found["rows"]:
        arrow = {True: "↑", False: "↓"}.get(row["higher_is_better"], "")
        name = row["metric"] if row["filter"] == "none" else f"{row['metric']}, {row['filter']}"
        cells = ["" if row["task"] == last else row["task"], name, arrow]
        for label in labels:
            cell = row["values"][label]
            cells.append(with_error("{:.4f}", cell["value"], cell["stderr"]))
            if label != labels[0]:
                cells.append(with_error("{:+.4f}", cell["difference"], cell["difference_stderr"]))
        lines.append(cells)
        last = row["task"]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def with_error(form: str, value: float, error: Optional[float]) -> str:
    return form.format(value) + ("" if error is None else f" ± {error:.4f}")


def write_json(path: pathlib.Path, content: dict, default) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2, default=default, ensure_ascii=False) + "\n")
    temporary.replace(path)


def numbers(text: str) -> list[float]:
    """0.5,0.9 or dense,0.5,0.9"""
    try:
        found = [0.0 if word == "dense" else float(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers, such as dense,0.5,0.9") from None
    if len(set(found)) != len(found):
        raise argparse.ArgumentTypeError("a setting stands twice")
    return found


def main(arguments: Optional[list[str]] = None) -> None:
    from lm_eval._cli import HarnessCLI
    from lm_eval.utils import setup_logging
    parser = argparse.ArgumentParser(prog="python -m seer.lm_eval", add_help=False, allow_abbrev=False, usage="%(prog)s [options of lm_eval] "
                                     "[--sparsity LIST | --strength LIST]", description=__doc__.split("\n\n")[-1])
    lists = parser.add_mutually_exclusive_group()
    for name, what in (("sparsity", "shares of the blocks that are left out"), ("strength", "strengths of the rule")):
        lists.add_argument(f"--{name}", type=numbers, metavar="LIST", help=f"{what}, such as dense,0.5,0.9; the first is what others are compared with")
    own, theirs = parser.parse_known_args(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(theirs):
        parser.print_help()
        print("\nOptions of lm_eval:\n", flush=True)
    before, sys.argv = sys.argv, ["lm_eval", *theirs]
    setup_logging()
    try:
        harness = HarnessCLI()
        args = harness.parse_args()
        if own.sparsity is None and own.strength is None:
            harness.execute(args)
        else:
            found = compare(args, "strength" if own.sparsity is None else "sparsity", own.strength or own.sparsity)
            if found:
                print(table_of(found))
    except ValueError as error:
        raise SystemExit(f"seer.lm_eval: error: {error}") from None
    finally:
        sys.argv = before


if __name__ == "__main__":
    main()
