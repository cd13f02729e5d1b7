"""Labelled sets as their authors publish them: one file for each, which knows the layout, the facts and the traps.

A reader is a frozen dataclass with a `kind`, a `path`, what a user may choose, and

    FACTS                  what is published of the set (`facts.Facts`)
    recognise(folder)      whether a folder is this set, from names alone
    load(seed)             the benchmark; raises BadInput, with file and reason, for a folder that is damaged
"""
