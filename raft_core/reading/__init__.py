"""Plain data from files and texts of anybody's making: bounded in size, checked in shape, refused in words.

Whatever this process has not written is read here: configurations, run folders, adapters, tables of prompts and preferences,
replies over HTTP. Reading runs nothing, follows no reference without a limit, and ends in plain data or in ``Unreadable``.
"""
