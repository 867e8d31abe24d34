"""Tests that look for shortcuts: one module per test, each giving an ``AuditResult``."""
