"""The installation: the checkout or package, optional packages, plug-ins, and `tuneyard doctor`."""
