"""A folder that installs axtune where there is no network: wheels, models, recipes, `install.sh`.

`locks` are the versions that were tested, `wheels` brings their files, `contents` what else is
carried, `make` writes the whole with the digest of every file.
"""
