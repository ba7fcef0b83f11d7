"""A plan on the terminal: the front, the plan with its odds, and what follows from it. Owns words and how numbers look."""

from __future__ import annotations

from typing import Any

from windtunnel.commands.common import results_console
from windtunnel.spec.units import format_chance, format_seconds

SHOWN = 12


def print_plan(result: dict[str, Any]) -> None:
    """The whole answer; when nothing meets the objective only the front."""
    from rich.table import Table
    from rich.text import Text

    console = results_console()
    heads, rows = table_of(result)
    table = Table(title=Text(f"{result['scenario']}: {_counted(result)}"), title_justify="left")
    for head in heads:
        table.add_column(Text(head), justify="left" if head in ("engine", "cluster", "") else "right")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    for line in sentences(result):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def table_of(result: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Heads and rows of the front."""
    heads, cells = (_SERVING, _serving_cells) if result["kind"] == "serving" else (_JOB, _job_cells)
    return heads, [(*cells(entry, _asked(result)), mark) for entry, mark in _rows(result)]


_JOB = ("engine", "cluster", "$/h", "time", "9 of 10 runs", "cost", "chance", "CPUs busy", "GPUs busy", "")
_SERVING = ("engine", "cluster", "$/h", "p99", "9 of 10 runs", "replicas", "chance", "CPUs busy", "GPUs busy", "")


def _rows(result: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """The front thinned to a screen, the plan and the next best among them."""
    chosen = result["recommended"]
    following = result["next_best"]
    entries = _thinned(result["front"])
    for entry in [e for e in (chosen, result["closest"], *following[:2]) if e is not None]:
        if entry["number"] not in [e["number"] for e in entries]:
            entries.append(entry)
    order = ("cost_usd", "makespan_s") if result["kind"] == "job" else ("price_per_hour", "p99_s")
    entries.sort(key=lambda e: (*(e[key] for key in order), e["number"]))
    marks: dict[int, str] = {e["number"]: "next best" for e in following[:1]}
    if chosen is not None:
        marks[chosen["number"]] = "plan"
    elif result["closest"] is not None:
        marks[result["closest"]["number"]] = "closest"
    return [(e, marks.get(e["number"], "")) for e in entries]


def _thinned(front: list[dict[str, Any]]) -> list[dict[str, Any]]:
    if len(front) <= SHOWN:
        return list(front)
    return [front[round(i * (len(front) - 1) / (SHOWN - 1))] for i in range(SHOWN)]


def _counted(result: dict[str, Any]) -> str:
    c = result["candidates"]
    return f"{c['asked']} candidates, {c['simulated']} simulated, {c['ruled_out_by_bounds']} too slow by their lower bound" + (
        f", {c['cannot_run']} cannot run it" if c["cannot_run"] else ""
    )


def _job_cells(entry: dict[str, Any], asked: bool) -> list[str]:
    low, high = entry["makespan_90_s"]
    return [
        entry["engine"], entry["shape"], f"{entry['price_per_hour']:.2f}", format_seconds(entry["makespan_s"]),
        f"{format_seconds(low)} – {format_seconds(high)}", money(entry["cost_usd"]) if entry["price_per_hour"] else "–",
        format_chance(entry["chance"]) if asked else "–", *_busy(entry),
    ]  # fmt: skip


def _serving_cells(entry: dict[str, Any], asked: bool) -> list[str]:
    low, high = entry["p99_90_s"]
    replicas = ", ".join(
        f"{n} {r['min']}–{r['max']}" if r["min"] != r["max"] else f"{n} {r['max']}" for n, r in entry["replicas"].items()
    )
    return [
        entry["engine"], entry["shape"], f"{entry['price_per_hour']:.2f}", format_seconds(entry["p99_s"]),
        f"{format_seconds(low)} – {format_seconds(high)}", replicas, format_chance(entry["chance"]), *_busy(entry),
    ]  # fmt: skip


def _busy(entry: dict[str, Any]) -> list[str]:
    return ["–" if name not in entry["used"] else f"{entry['used'][name]:.0%}" for name in ("CPUs", "GPUs")]


def money(dollars: float) -> str:
    """With as many digits as matter."""
    return f"${dollars:,.0f}" if abs(dollars) >= 1000 else f"${dollars:.2f}" if abs(dollars) >= 0.995 else f"${dollars:.4f}"


# -- sentences ----------------------------------------------------------------------------------------------------------


def sentences(result: dict[str, Any]) -> list[str]:
    """What follows from the plan, a line each."""
    chosen = result["recommended"]
    lines = [f"note: {note}" for note in result["notes"]]
    if chosen is None:
        return lines
    if result["kind"] == "serving":
        return [_serving_plan(result), *_common(result), *_growth_serving(result), *lines]
    low, high = chosen["makespan_90_s"]
    plan = (
        f"plan: {chosen['engine']} on {chosen['shape']}: {format_seconds(chosen['makespan_s'])} "
        f"({format_seconds(low)} to {format_seconds(high)} in 9 of 10 runs)"
        + (f", {money(chosen['cost_usd'])}" if chosen["cost_usd"] else "")
        + (f"; it keeps the objective with probability {format_chance(chosen['chance'])}" if _asked(result) else "")
    )
    return [
        plan,
        *_common(result),
        *_buy(result),
        *_growth(result),
        *_price(result),
        *_failures(result),
        _distance(result),
        *lines,
    ]


def _asked(result: dict[str, Any]) -> bool:
    return any(result["objective"].get(k) is not None for k in ("deadline_s", "budget_usd", "p99_s"))


def _common(result: dict[str, Any]) -> list[str]:
    neck, rest = result["bottleneck"], result["idle"]
    if neck["resource"] == "waiting":
        most = f"{neck['busiest']}, {neck['share']:.0%}"
        text = f"bottleneck: nothing is busy all the time (most: {most}): waiting for loads, the driver or last tasks"
    else:
        text = f"bottleneck: {neck['resource']}, {neck['share']:.0%} busy"
    wasted = [f"{name} {share:.0%} idle" for name, share in rest.items() if share >= 0.2]
    lines = [text + (f"; paid for and not used: {', '.join(wasted)}" if wasted else "")]
    if result["next_best"]:
        other = result["next_best"][0]
        if result["kind"] == "job":
            worth = _priced(format_seconds(other["makespan_s"]), other["cost_usd"])
        else:
            worth = f"{money(other['price_per_hour'])} an hour"
        lines.append(f"next best: {other['engine']} on {other['shape']}, {worth}")
    return lines


def _priced(text: str, dollars: float) -> str:
    """With the dollars where there is a price."""
    return f"{text}, {money(dollars)}" if dollars else text


def _buy(result: dict[str, Any]) -> list[str]:
    useful = [b for b in result["buy_next"] if b["saves_s"] > 0.01 * result["recommended"]["makespan_s"]]
    if not useful:
        tried = ", ".join(b["what"] for b in result["buy_next"])
        return [f"buy next: nothing that was tried ({tried}) saves 1 % of the time"]
    return ["buy next: " + "; ".join(f"{b['what']} saves {format_seconds(b['saves_s'])} ({_more(b)})" for b in useful)]


def _more(change: dict[str, Any]) -> str:
    if "node" not in change["what"]:
        return "before its own price"
    cost = change["costs_usd"]
    return f"{money(abs(cost))} {'more' if cost >= 0 else 'less'}"


def _growth(result: dict[str, Any]) -> list[str]:
    parts = []
    for g in result["sensitivity"]["input"]:
        if g["makespan_s"] is None:
            parts.append(f"× {g['factor']} fails ({g['reason']})")
            continue
        text = f"× {g['factor']}: {_priced(format_seconds(g['makespan_s']), g['cost_usd'])}"
        if g["nodes_in_proportion"] is not None:
            text += f", chance {format_chance(g['chance'])}"
            if g["nodes_in_proportion"] > result["recommended"]["nodes"]:
                text += f" (about {g['nodes_in_proportion']} nodes would keep it)"
        parts.append(text)
    return ["if the data grow: " + "; ".join(parts)]


def _price(result: dict[str, Any]) -> list[str]:
    price = result["sensitivity"]["price"]
    if price is None:
        return []
    if price["rise"] < 0.005:
        return [f"if prices change: {price['then']} costs the same, and is better as soon as the plan's price rises"]
    return [f"if prices change: best until its price rises by {price['rise']:.0%}, then {price['then']}"]


def _failures(result: dict[str, Any]) -> list[str]:
    failures = result["sensitivity"]["failures"]
    if failures["one_loss_s"] is None:
        return [f"if nodes fail: {failures['reason']}"]
    parts = [
        f"one failure a node every {format_seconds(r['mtbf_s'])} ({r['losses']:.2g} expected): {format_seconds(r['makespan_s'])}"
        for r in failures["rates"]
    ]
    return [f"if nodes fail: the loss of one costs {format_seconds(failures['one_loss_s'])}; " + "; ".join(parts)]


def _distance(result: dict[str, Any]) -> str:
    far, error = result["extrapolation"], result["recommended"]["error"]
    size = (
        "simulated whole"
        if far["partitions"] <= 1
        else f"1/{far['partitions']:.3g} of the partitions simulated (± {far['size_error']:.1%})"
    )
    apart = far["cpus"]
    cluster = f"{apart:.2g} times the largest cluster that the model was compared on ({far['checked_cpus']} CPUs)"
    return (
        f"how sure: {size}; {cluster}; model ± {error['model']:.0%}, all together ± {error['sigma']:.0%} (one standard deviation)"
    )


def _serving_plan(result: dict[str, Any]) -> str:
    chosen = result["recommended"]
    replicas = ", ".join(
        f"{r['max']} × {n}" if r["min"] == r["max"] else f"{r['min']} to {r['max']} × {n}" for n, r in chosen["replicas"].items()
    )
    low, high = chosen["p99_90_s"]
    text = (
        f"plan: {chosen['engine']} on {chosen['shape']} with {replicas}: p99 {format_seconds(chosen['p99_s'])} "
        f"({format_seconds(low)} to {format_seconds(high)} in 9 of 10 runs), {money(chosen['price_per_hour'])} an hour; "
        f"it keeps the objective with probability {format_chance(chosen['chance'])}"
    )
    auto = result["autoscaling"]
    if auto is not None:
        text += (
            f"\nautoscaling: p99 {format_seconds(auto['p99_s'])}, replicas hold {auto['share']:.0%} of what fixed ones do; "
            f"nodes that follow them would cost {money(auto['price_per_hour'])} an hour"
            + ("" if auto["meets"] else "; but it misses the objective")
        )
    return text


def _growth_serving(result: dict[str, Any]) -> list[str]:
    parts = []
    for g in result["sensitivity"]["input"]:
        if g["p99_s"] is None:
            parts.append(f"× {g['factor']}: the plan does not keep up")
        else:
            parts.append(f"× {g['factor']}: p99 {format_seconds(g['p99_s'])}")
        if g["shape"] is not None:
            parts[-1] += f" (then {g['shape']}, {money(g['price_per_hour'])} an hour)"
    return ["if the rate grows: " + "; ".join(parts)]


def closest_sentence(result: dict[str, Any]) -> str:
    """Nothing meets the objective: what comes closest."""
    from windtunnel.spec.units import format_seconds as seconds

    o, closest = result["objective"], result["closest"]
    asked = [f"a deadline of {seconds(o['deadline_s'])}"] if o.get("deadline_s") else []
    asked += [f"a budget of {money(o['budget_usd'])}"] if o.get("budget_usd") else []
    asked += [f"a p99 of {seconds(o['p99_s'])}"] if o.get("p99_s") else []
    head = f"no candidate keeps {' and '.join(asked) or 'up'} with probability {o['confidence']:.0%}"
    if closest is None:
        return f"{head}, and none of those simulated ended well; try other instance types or counts"
    place = f"{head}; closest: {closest['engine']} on {closest['shape']}"
    if result["kind"] == "serving":
        return f"{place}, p99 {seconds(closest['p99_s'])}, {money(closest['price_per_hour'])} an hour"
    return f"{place}, {seconds(closest['makespan_s'])}, {money(closest['cost_usd'])}, chance {format_chance(closest['chance'])}"
