"""The prose of an audit's page: what was audited, how to read it, and how it was computed."""

from collections.abc import Mapping
from typing import Any

from pnoise_jax.counting import counted
from pnoise_jax.studies.reporting import figure_captions as captions
from pnoise_jax.studies.reporting import tables
from pnoise_jax.studies.reporting import verdict_labels as kinds

PAPER_NOISES = {"optimal", "cyclic_shift", "dense", "gaussian", "salt_and_pepper"}
LINEAR_TRANSFORMS = {"optimal", "cyclic_shift", "reverse", "dense"}


def subject(audit: Mapping[str, Any]) -> str:
    """Returns one line: what was audited, and on which data."""
    classes = counted(audit["num_classes"], "class", "classes")
    if audit["per_class"] and (held := len(audit["per_class"])) != audit["num_classes"]:
        classes = f"{held} of the model’s {classes}"
    split = f", {audit['split']} split" if audit["split"] else ""
    trained = audit["config"] is not None
    parts = (
        audit["model"],
        f"{audit['dataset']}{split}: {counted(audit['n'], 'example')} of {classes}",
        counted(len(audit["seeds"]), "seed") if trained else "",
        str(audit["date"]).partition("T")[0],
    )
    return " · ".join(part for part in parts if part)


def about(audit: Mapping[str, Any]) -> list[str]:
    """Returns paragraphs on the claim under audit and the program that audits it."""
    noises = {finding["quality"] for finding in audit["findings"]}
    paragraphs = []
    if noises & PAPER_NOISES:
        paragraphs.append(_paper(noises))
    elif noises == {None}:
        paragraphs.append(
            "This audit examines a function that takes a batch of examples and returns a score "
            "for each class. It assumes nothing about how the function works and looks only at its "
            "outputs."
        )
    else:
        paragraphs.append("This audit examines a noise that acts on the examples of a batch.")
    paragraphs.append(f"Audited with {project(audit)}.")
    return paragraphs


def project(audit: Mapping[str, Any]) -> str:
    """Returns the program that made the audit, its version, and its commit if known."""
    commit = audit.get("commit")
    return f"pnoise_jax {audit['project']}" + (f", commit {commit}" if commit else "")


def reading(audit: Mapping[str, Any]) -> dict[str, str]:
    """Returns explanations by term, which depend on the kinds of the verdicts."""
    held = kinds.held(audit)
    terms = {
        "What differs": _what_differs(audit),
        "Shuffled, class-sorted": "Shuffled batches are drawn at random from the test set, as "
        "in use. Class-sorted batches follow the order of the classes, as when a folder of images "
        "is read class by class, so batch mates mostly share a label. A deployed classifier gets "
        "such batches only if somebody already knows the labels.",
    } | _why_the_order_matters(audit)
    terms["Honest effect"] = (
        "Shuffled minus clean: the only difference on this page that says what to expect in use."
    )
    terms["Interventions"] = (
        "Orders alone do not explain why an accuracy changes. So the audit chooses the batch mates "
        "of an example: first all of one class, then all of another. A prediction that follows the "
        "class of the mates reads their labels."
    )
    terms["Batch vote"] = (
        "A reference without noise: the clean model’s outputs are averaged over a batch, and every "
        "example in it gets the class with the highest mean. It shows how much the composition of "
        "a batch gives away, not how the noise works."
    )
    terms["Brackets"] = (
        f"Numbers in brackets are {tables.percent(audit['confidence'])} intervals, unless they are "
        "labelled as the lowest to the highest of several orders."
    )
    if "no_effect" in held or "undecided" in held:
        terms["Bound of equivalence"] = (
            f"The audit says that there is no effect only if the whole interval lies within "
            f"±{tables.points(audit['equivalence'])}."
        )
    return terms


def target(row: Mapping[str, Any]) -> str:
    """Returns the name of an intervention's target."""
    name: str = row["target"]
    return "third class" if name == "image" else name


def targets(audit: Mapping[str, Any]) -> dict[str, str]:
    """Returns what the targets of the interventions are."""
    return {
        target(row).capitalize(): row["words"].capitalize() + "." for row in audit["interventions"]
    }


def metric(audit: Mapping[str, Any]) -> str:
    """Describes the user's metric, and whether its value depends on the batches."""
    result = audit["metric"]
    low, high = result["range_of_fixed_predictions"]
    if not result["depends_on_batching"]:
        orders = sum(map(len, result["of_fixed_predictions"].values()))
        return (
            f"With the predictions held fixed, this metric has the same value in {orders} orders, "
            f"in batches of {audit['headline']['batch_size']}."
        )
    return (
        "With the predictions held fixed, the metric itself ranges from "
        f"{tables.number(low)} to {tables.number(high)} (lowest to highest), depending on how the "
        "examples are batched. A difference between orders within that range says nothing about "
        "the noise."
    )


def method(audit: Mapping[str, Any]) -> dict[str, str]:
    """Returns how the numbers were computed, by topic."""
    topics = {
        "Accuracies": _intervals(audit),
        "Differences": "Paired by example and by seed, with Student’s t interval. p-values are "
        "two-sided, and corrected by Holm’s method: for each difference, over all noises and "
        "batch sizes.",
        "Orders": f"The test set stays the same; only its order is drawn again, "
        f"{audit['shuffled_orders']} times. A prediction interval with Student’s t shows where "
        "another order falls among these. p-values are corrected by Holm’s method over all order "
        "tests of the audit.",
        "Interventions": "Sign-flip permutation tests over pairs of disjoint groups of mates, so "
        "that no example counts twice as a mate. They are one-sided. Each kind of target and each "
        "direction (towards the class of the mates, away from it) gets an equal share of the "
        "level.",
    }
    if audit["clean_check"]:
        check = audit["clean_check"]
        topics["Clean reference"] = (
            f"Of {counted(check['examples'], 'example')}, about half were replaced in each of "
            "several calls of the clean model, so that each mate of an example was replaced in "
            "some call; the logits of the remaining examples changed by at most "
            f"{tables.small(check['largest_logit_difference'])}."
        )
    if audit["config"] is not None:
        topics["Seeds"] = tables.series(audit["seeds"])
    if audit.get("weights"):
        topics["Weights"] = "; ".join([audit["weights"], *audit.get("notes", ())])
    if any(audit["steps"] or ()):
        topics["Training steps"] = tables.series(audit["steps"])
    seconds = {part: took for part, took in audit["seconds"].items() if took >= 0.05}
    topics["Time"] = ", ".join(f"{part} {tables.number(took)} s" for part, took in seconds.items())
    topics["Units"] = "; ".join(f"{name}: {unit}" for name, unit in audit["units"].items())
    topics["The numbers"] = (
        "They are in audit.csv and audit.json, next to this page, without rounding."
    )
    return {topic: words for topic, words in topics.items() if words}


def versions(audit: Mapping[str, Any]) -> dict[str, str]:
    """Returns the date, the versions and the device of the audit."""
    fields = {"Date": "date", "JAX": "jax", "Device": "device", "Audit format": "version"}
    entries = {name: str(audit[key]) for name, key in fields.items() if audit[key] is not None}
    return {"Program": project(audit)} | entries


def headline_note(audit: Mapping[str, Any]) -> str:
    """Explains the large numbers, and why the verdict's class order may differ from them."""
    wanted = audit["headline"]
    note = (
        f"Top-1 with its {captions.interval(audit)}; {wanted['noise_id']}, batches of "
        f"{wanted['batch_size']}."
    )
    if kinds.independent(audit["verdict"]):
        return note
    permuted = next(
        row
        for row in tables.by_cell(audit["orders"])[wanted["noise_id"], wanted["batch_size"]]
        if row["order"] == "class_sorted, files permuted"
    )
    return (
        f"{note} Class-sorted is one order, with the files of a class as the data set has them; "
        f"{counted(permuted['orders'], 'order')} with these files permuted score "
        f"{tables.number(permuted['top1'])} % on average."
    )


def _paper(noises: set[str | None]) -> str:
    words = (
        "The claim under audit is that of the paper “Explore Positive Noise in Deep Learning”, "
        "later titled “NoisyNN” (arXiv 2309.10625): some noise in a network’s latent "
        "representations raises its accuracy."
    )
    if noises & LINEAR_TRANSFORMS:
        words += (
            " Its linear transform replaces the representations X of the k examples in a batch by "
            "X + QX, where the k × k matrix Q mixes the examples."
        )
    if "optimal" in noises:
        words += (
            " “Optimal” is the paper’s name for the Q of its equation 19, which nearly replaces "
            "each example by the mean of its batch."
        )
    return words


def _why_the_order_matters(audit: Mapping[str, Any]) -> dict[str, str]:
    # A verdict is about one batch size, and this about all of them.
    checks = [kinds.independent(finding["verdict"]) for finding in audit["findings"]]
    checks += [check["independent"] for check in audit.get("dependence", ())]
    if all(checks):
        return {
            "Why nothing leaked": "In all batches that were tried, each prediction was the same, "
            "whatever the other examples of its batch. So nothing leaked, and no order of the test "
            "set changed the accuracy."
        }
    return {
        "Why the order can matter": "If a prediction depends on the other examples of its "
        "batch, its batch mates, then it matters which examples these are. In class order the "
        "mates have the example’s own label, so a prediction that picks up the mates’ label is "
        "right more often."
    }


def _what_differs(audit: Mapping[str, Any]) -> str:
    if audit["config"] is None:
        return (
            "All rows score the same examples. Clean rows call the clean reference or, if there is "
            "none, the audited function on one example at a time. The other rows call the audited "
            "function on batches, and differ in which examples share a batch."
        )
    return (
        "All rows use the same trained weights and the same test examples. Only two things "
        "change: whether the noise is on, and which examples share a batch. So no difference "
        "between rows comes from training."
    )


def _intervals(audit: Mapping[str, Any]) -> str:
    words = (
        f"{tables.percent(audit['confidence'])} intervals over {audit['interval_over']}: "
        "Clopper–Pearson at the effective number of examples that the variance implies. If "
        "predictions depend on the batch, a class-sorted batch counts as one unit; a mean over "
        "random orders counts examples as units and adds the variance over orders."
    )
    if audit["interval_over"] == "examples" and audit["config"] is not None:
        words += " They do not cover other training runs."
    if audit["interval_over"] != "examples" and len(audit["seeds"]) == 2:
        words += (
            " With two seeds they are too narrow if the seeds differ by several points: in "
            "simulations, 95 % intervals then held the true accuracy in 85 to 92 % of cases."
        )
    return words
