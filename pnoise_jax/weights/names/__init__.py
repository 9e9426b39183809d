"""How the sources of weights name their arrays, and which families of models they have.

`naming` lists the supported naming schemes and detects which one a file uses. `google` and `torch`
translate names and layouts, `families` contains the properties that all models of a family share,
`other_families` recognises families that this package does not have, `timm_layout` translates our
arrays to timm's, and `timm_models` maps our models to timm's names.
"""
