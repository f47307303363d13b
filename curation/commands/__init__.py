"""The commands of `curate`, by the noun they are about: parsing and printing only."""
