"""The kinds of adapters, a file each: recognise, read, check against a base, ΔW of a module, show."""
