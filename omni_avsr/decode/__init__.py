"""Clips and files to text."""
