"""Recipes: keys, values, rules, command lines and the plan derived from them, without a framework."""
