"""Bring the catalogue of messages up to date: `make catalogue`.

Takes the templates out of the code (`_`, `tr`, `marked`, `ngettext`, `counted`), keeps their Chinese, and
writes core/language/locale/zh/LC_MESSAGES/tuneyard.po and .mo. Lists what has no Chinese yet: it is printed
in English.
"""

import sys

from testing.catalogue import (
    PO,
    committed,
    extracted,
    mo_bytes,
    po_text,
    untranslated,
    updated,
    without_message,
)


def main() -> None:
    """Write both files. List what has no Chinese, and the Chinese of messages that are gone."""
    before = committed()
    catalog = updated(before, extracted())
    PO.write_bytes(po_text(catalog))
    PO.with_suffix(".mo").write_bytes(mo_bytes(catalog))
    missing = list(untranslated(catalog))
    sys.stdout.writelines(f"{template!r}\n" for template in missing)
    print(f"{len(catalog)} messages, {len(missing)} without Chinese")
    for template, chinese in without_message(before, catalog):
        print(f"no code has this message any more: {template!r}, its Chinese was {chinese!r}")


if __name__ == "__main__":
    main()
