"""Publishing: dataset_info.json, the manifests, and the comparison of files with them."""
