"""Names of a file of a ready-made dataset."""

from collections.abc import Mapping

from steps.base.errors import UserError


def known_names(names: tuple[str, ...]) -> list[str]:
    """Each name, and the same zipped."""
    return [name + end for name in names for end in ("", ".gz")]


def found(
    part: str, names: tuple[str, ...], there: Mapping[str, object], where: str, recipe: str
) -> str:
    """The first of a file's names that is there. Raises UserError naming them all."""
    for name in known_names(names):
        if name in there:
            return name
    others = ", ".join(known_names(names)[1:])
    raise UserError(
        f"{where} has no {names[0]} (nor {others}), which is the {part} file of {recipe}; correct "
        f"benchmark.dataset.{part}.names"
    )
