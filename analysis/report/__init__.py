"""From findings to what people read: pages, figures, tables."""
