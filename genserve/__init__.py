"""Genserve: the console script that ties the three rooms together."""
