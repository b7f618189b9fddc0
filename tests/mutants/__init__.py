"""Mutation testing: would the tests notice a wrong number? (make mutants)"""
