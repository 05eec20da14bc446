"""The stages of which every compression with training is made, and the run that takes a module through them.

`stage` says what a stage is, `stage_library` has those that train, prune, share and round, `running` runs them, and
`saved_stages` saves each when it is done.
"""
