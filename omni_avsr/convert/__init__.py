"""Weights of other projects to folders of ours."""
