"""dataset_info.json and the manifests: what is published, and whether it is still up to date."""
