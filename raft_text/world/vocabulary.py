"""The words of the sums: people, things, and what happens to them."""

from __future__ import annotations

from typing import Literal

Kind = Literal["gain", "lose", "more", "fewer", "times", "share"]

NAMES = (
    "Anna",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Grace",
    "Henry",
    "Ivy",
    "Jonas",
    "Kate",
    "Leo",
    "Maya",
    "Noah",
    "Olga",
    "Paul",
)
THINGS = (
    "apples", "pencils", "stamps", "marbles", "cookies", "books", "coins", "shells", "stickers", "cards", "balloons", "eggs",
    "flowers", "beads", "buttons", "plums",
)  # fmt: skip
CONTAINERS = ("bags", "boxes", "baskets", "jars", "drawers", "packets")

# What one event is called. {who} is whom the number belongs to, {other} somebody else, {n} the event's number. After "more",
# "fewer" and "times" the number is that of {other}.
EVENTS: dict[Kind, tuple[str, ...]] = {
    "gain": (
        "Then {who} buys {n} more.",
        "{who} finds {n} {things} on the way home.",
        "{other} gives {who} {n} {things}.",
        "The next day {who} gets another {n}.",
        "{who} wins {n} {things} in a game.",
    ),
    "lose": (
        "Then {who} loses {n} of them.",
        "{who} gives {n} {things} to {other}.",
        "{who} sells {n} of the {things}.",
        "{who} drops {n} {things}, and they break.",
        "{other} takes {n} {things} away from {who}.",
    ),
    "more": (
        "{other} has {n} more {things} than {who}.",
        "{other} has as many {things} as {who} and {n} more.",
    ),
    "fewer": (
        "{other} has {n} fewer {things} than {who}.",
        "{other} would need {n} more {things} to have as many as {who}.",
    ),
    "times": (
        "{other} has {n} times as many {things} as {who}.",
        "{other} collects {n} times the number of {things} that {who} has.",
    ),
    "share": (
        "{who} makes {n} equal piles of them and keeps only one pile.",
        "{who} shares the {things} equally with friends, so that each of the {n} gets the same.",
    ),
}
STARTS = ("{who} has {a} {things}.", "At first {who} has {a} {things}.", "There are {a} {things} on the table of {who}.")
GROUPED = (
    "{who} has {a} {containers} with {b} {things} in each.",
    "{who} fills {a} {containers}, and puts {b} {things} into each of them.",
)
DISTRACTORS = (
    "{who} is {n} years old.",
    "{who} also has {n} {others}.",
    "{other} lives {n} streets away.",
    "It takes {n} minutes.",
    "The {containers} cost {n} dollars.",
    "There are {n} children in the class of {other}.",
)
QUESTIONS = (
    "How many {things} does {who} have now?",
    "How many {things} does {who} have in the end?",
    "What is the number of {things} that {who} has now?",
    "Find out how many {things} {who} has.",
)

# How a chain of thought says the steps, in sentences and in names of variables.
SENTENCES: dict[Kind, str] = {
    "gain": "Then {who} has {sum} {things}.",
    "lose": "After that {sum} {things} are left.",
    "more": "So {who} has {sum} {things}.",
    "fewer": "So {who} has {sum} {things}.",
    "times": "For {who} that makes {sum} {things}.",
    "share": "One part is {sum} {things}.",
}
PRODUCT = "In all {who} has {sum} {things}."
SIGNS: dict[Kind, str] = {"gain": "+", "lose": "-", "more": "+", "fewer": "-", "times": "*", "share": "/"}
