"""How the sources of weights name their parameters, and which families of models they have.

`naming` lists the naming schemes that are read and finds that of a file. `google` and `torch`
translate names and layouts, `families` holds what all models of a family have in common,
`other_families` recognises families that this package does not have, and `timm_models` knows what
timm calls our models.
"""
