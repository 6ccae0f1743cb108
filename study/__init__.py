"""The question: what varies, what is fixed, what is measured."""
