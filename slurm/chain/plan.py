"""A recipe with its values filled in: the links of a chain, in an order in which they can be done."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import re
from typing import Collection, Iterator, Mapping, Optional, Sequence

import msgspec

from pipelines.core import paths, registry
from pipelines.core.errors import UsageError
from slurm.chain.recipe import Recipe, Step

TOOLS = {"wer": "pipelines.asr.wer", "units": "pipelines.units.export", "pairs": "pipelines.score.pairs"}
"""Commands beside the pipelines that a chain may have, by module: they take seconds, and print what they find."""
_WHOLE = ("--wait", "--no-wait", "--cluster", "--dry-run", "--fresh")
"""Flags that a step may not have."""
_PLACE = re.compile(r"\{([^{}]*)\}")


class Link(msgspec.Struct, frozen=True):
    """One command of a chain. `words` and `launch` are complete but for `{link.result}`; `after`: names of links."""

    name: str
    words: list[str]
    launch: list[str]
    after: list[str]
    most_failed: float

    @property
    def is_tool(self) -> bool:
        """Whether it is a command that is no pipeline."""
        return self.words[0] in TOOLS


def reference(text: str) -> Optional[tuple[str, str]]:
    """(link, result) of what stands between braces; None where that is a value's name."""
    name, dot, result = text.rpartition(".")
    return (name, result) if dot else None


def filled(word: str, known: Mapping[str, str], where: str, later: Collection[str] = ()) -> str:
    """A word with its values filled in; references stay, and names that are known `later`. Raises UsageError."""

    def one(match: re.Match[str]) -> str:
        if reference(match[1]) or match[1] in later:
            return match[0]
        if match[1] not in known:
            near = difflib.get_close_matches(match[1], known, 1, 0.6)
            told = f"Did you mean {{{near[0]}}}?" if near else f"There are {', '.join(known)}."
            raise UsageError(f"{where} names {{{match[1]}}}, and the recipe has no such value. {told}")
        return known[match[1]]

    return _PLACE.sub(one, word)


def references(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """All references among words."""
    for word in words:
        for match in _PLACE.finditer(word):
            found = reference(match[1])
            if found is not None:
                yield found


def referring(word: str, results: Mapping[str, Mapping[str, str]]) -> str:
    """A word with its references filled in, from the results of each link. Raises KeyError(link) where one is open."""

    def one(match: re.Match[str]) -> str:
        link, result = reference(match[1]) or ("", "")
        left = results[link]
        if result not in left:
            raise UsageError(
                f"A step refers to {{{match[1]}}}, and {link} leaves no {result!r}; it leaves {', '.join(left)}. "
                "Mend the recipe."
            )
        return left[result]

    return _PLACE.sub(one, word)


def values(recipe: Recipe, given: Mapping[str, str]) -> dict[str, str]:
    """The values of a chain: those given, else the defaults. Raises UsageError."""
    unknown = [name for name in given if name not in recipe.values]
    missing = [name for name, value in recipe.values.items() if value.default is None and not given.get(name)]
    if unknown or missing:
        wrong = f"has no value {', '.join(unknown)}" if unknown else f"needs {', '.join(f'{n}=…' for n in missing)}"
        raise UsageError(f"The recipe {recipe.name} {wrong}. Its values: {spoken(recipe)}.")
    found = {}
    for name, value in recipe.values.items():
        text = str(given.get(name, value.default))
        found[name] = str(paths.absolute(text)) if value.is_path else text
    return found


def spoken(recipe: Recipe) -> str:
    """The values of a recipe for people."""
    told = []
    for name, value in recipe.values.items():
        default = "" if value.default is None else f" (default: {value.default})"
        told.append(f"{name}{f': {value.about}' if value.about else ''}{default}")
    return "; ".join(told) or "none"


def links(recipe: Recipe, chosen: Mapping[str, str]) -> list[Link]:
    """The links of a chain in order. Raises UsageError."""
    builtin = {"metadata": str(paths.metadata()), "output": str(paths.home() / "output"), "home": str(paths.home())}
    made: dict[str, list[tuple[dict[str, str], Link]]] = {}
    every: list[Link] = []
    for number, step in enumerate(recipe.steps):
        where = f"{recipe.path}, step {step.name}"
        _check_command(step, where)
        choices = {key for links_of in made.values() for choice, _ in links_of for key in choice} | set(step.each)
        words = [filled(word, {**builtin, **chosen}, where, choices) for word in step.words]  # may bring references
        named = _named(words, step.after or (), made, where)
        follows = set(step.after) if step.after is not None else set()
        if step.after is None and number:
            follows = {recipe.steps[number - 1].name}
        made[step.name] = []
        for choice in _choices(step, [made[name] for name in sorted(named)]):
            # A link goes with those links of other steps that were made of the same choices.
            partners = {name: _partners(made[name], choice) for name in named | follows}
            lonely = sorted(name for name in named if not partners[name])
            if lonely:
                raise UsageError(f"{where}: no {lonely[0]} was made with {choice}. Let both have the same values.")
            title = step.name + "".join(f"[{key}={value}]" for key, value in choice.items())
            known = {**builtin, **chosen, **choice}
            pointed = [_pointed(filled(word, known, where), partners) for word in words]
            after = [link.name for name in sorted(named | follows) for link in partners[name]]
            link = Link(title, pointed, [filled(word, known, where) for word in step.launch], after, step.most_failed)
            link = msgspec.structs.replace(link, after=_in_order([*after, *_rivals(link, every)], every))
            _check_results(link, every, where)
            _check_twins(link, [other for _, other in made[step.name]], every, where)
            made[step.name].append((choice, link))
            every.append(link)
    return every


def _check_results(link: Link, every: Sequence[Link], where: str) -> None:
    """Raise UsageError where a link names what no link before it leaves."""
    for name, result in references(link.words):
        other = next(other for other in every if other.name == name)
        leaves = ["output"] if other.is_tool else list(registry.find(other.words[0]).results) or ["manifest"]
        if result not in leaves:
            there = ", ".join(leaves)
            raise UsageError(f"{where} names {{{name}.{result}}}, and {name} leaves {there}. Mend the recipe.")


def _check_twins(link: Link, before: Sequence[Link], every: Sequence[Link], where: str) -> None:
    """Raise UsageError where two links of one step would do the very same."""
    for other in before:
        if _settled(other, every) == _settled(link, every):
            raise UsageError(
                f"{where}: {other.name} and {link.name} would be one and the same command, on the same files, and yet "
                "they are to be done once for each choice. A manifest that a step extends is one file whatever the "
                "choices, and holds what the last of them wrote. Name what differs: {step.units}/manifest.json, the "
                "manifest beside packed units, or the choice itself, as in --field {model}."
            )


def _settled(link: Link, every: Sequence[Link]) -> list[str]:
    """A link's words, manifests that links extend in one spelling."""

    def one(match: re.Match[str]) -> str:
        name, result = reference(match[1]) or ("", "")
        other = next((other for other in every if other.name == name), None)
        return _source(other, every) if other is not None and result == "manifest" and _extends(other) else match[0]

    return [_PLACE.sub(one, word) for word in link.words]


def _check_command(step: Step, where: str) -> None:
    known = [*registry.folders(), *TOOLS]
    if step.words[0] not in known:
        near = difflib.get_close_matches(step.words[0], known, 1, 0.6)
        told = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(f"{where} runs {step.words[0]!r}, which a chain cannot. {told}It can {', '.join(known)}.")
    unclear = [flag for flag in (*step.words, *step.launch) if flag.split("=")[0] in _WHOLE]
    if unclear:
        raise UsageError(f"{where} sets {unclear[0]}; that is the whole chain's concern: give it to `voxarray run`.")


def _named(words: Sequence[str], after: Collection[str], made: Mapping[str, object], where: str) -> set[str]:
    """The steps whose results a step names. Raises UsageError where one (or one of `after`) is not above it."""
    named = {name for name, _ in references(words)}
    for name in sorted(named | set(after)):
        if name not in made:
            raise UsageError(
                f"{where} refers to {name!r}, and no step above it has that name. Above: {', '.join(made) or 'none'}. "
                "Steps refer to those above them."
            )
    return named


def _choices(step: Step, named: Sequence[list[tuple[dict[str, str], Link]]]) -> Iterator[dict[str, str]]:
    """Every combination of the step's own choices and of those that it inherits."""
    axes: dict[str, list[str]] = {}
    for links_of in named:
        for choice, _ in links_of:
            for key, value in choice.items():
                axes.setdefault(key, [])
                if value not in axes[key]:
                    axes[key].append(value)
    axes.update(step.each)
    for combination in itertools.product(*axes.values()):
        yield dict(zip(axes, combination))


def _partners(made: Sequence[tuple[dict[str, str], Link]], choice: Mapping[str, str]) -> list[Link]:
    return [link for other, link in made if all(choice.get(key, value) == value for key, value in other.items())]


def _pointed(word: str, partners: Mapping[str, list[Link]]) -> str:
    """A word whose references name links instead of steps."""

    def one(match: re.Match[str]) -> str:
        name, result = reference(match[1]) or ("", "")
        return f"{{{partners[name][0].name}.{result}}}"

    return _PLACE.sub(one, word)


def _source(link: Link, every: Sequence[Link]) -> str:
    """What a link reads, in one spelling: a manifest that links extend goes by many names."""
    word = link.words[1] if len(link.words) > 1 else ""
    found = next(references([word]), None)
    before = next((other for other in every if found and other.name == found[0]), None)
    if before is not None and found is not None and found[1] == "manifest" and _extends(before):
        return _source(before, every)
    return word


def _extends(link: Link) -> bool:
    return not link.is_tool and registry.find(link.words[0]).extends


def _rivals(link: Link, every: Sequence[Link]) -> list[str]:
    """Links before it that share its manifest, where either of the two extends that."""
    source = _source(link, every)
    return [
        other.name
        for other in every
        if _source(other, every) == source and (_extends(link) or _extends(other)) and source
    ]


def _in_order(names: Sequence[str], every: Sequence[Link]) -> list[str]:
    return [link.name for link in every if link.name in set(names)]


def digest(recipe: Recipe, every: Sequence[Link]) -> str:
    """8 hex digits over what a chain does: its identity."""
    what = [recipe.name, str(paths.home()), [[link.name, link.words] for link in every]]
    return hashlib.sha256(msgspec.json.encode(what)).hexdigest()[:8]
