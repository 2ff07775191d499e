"""Verification of TEST01 and TEST04 on anyone's LoadGen logs, with the official meaning."""
