"""What there is: cards of the datasets, raw metadata files, built manifests, named lists."""
