"""Rows as read become checked columns: values, labels, cleaning, filters, unused columns."""
