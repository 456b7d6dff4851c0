"""How user turns may begin: a model that is asked to write both sides would otherwise write about little."""

from __future__ import annotations

from collections.abc import Mapping

KINDS: Mapping[str, tuple[str, ...]] = {
    "free": ("", "", "", "", "I", "The", "My", "Can you", "Please", "Hi,", "Hello!"),
    "questions": (
        "What is", "What are", "What does", "What causes", "What was", "Who was", "Who invented", "When did",
        "Where is", "Where do", "Which", "Why do", "Why does", "Why is", "How does", "How do", "How can I",
        "How is", "Is it true that", "Explain", "Describe", "Define", "Tell me about", "Compare",
        "What is the difference between", "What happens when", "Give an example of", "In which country",
        "In what year", "Name the", "Is there a", "Do animals", "Can humans", "True or false:",
    ),
    "maths": (
        "What is the sum of", "How many", "How much", "Solve the equation", "Calculate", "Find the value of",
        "Anna has", "Tom buys", "A train", "A farmer", "A shop sells", "If a", "There are", "Maria and",
        "A class of", "Last week,", "Each day,", "The price of", "A rectangle has", "What percentage of",
        "Convert", "Simplify", "Two friends", "A recipe needs", "In a box there are", "Every month,",
    ),
    "code": (
        "Write a Python function that", "Write a function to", "How do I", "Fix this code:", "def ",
        "Write a SQL query that", "Write a JavaScript function", "What does this code do?\n\n", "In Python,",
        "Create a class", "Write a program that", "Write an HTML page", "Explain the following code:",
        "Write a bash script", "How can I sort",
    ),
    "rewriting": (
        "Rewrite the following sentence", "Summarize the following text:", "Correct the grammar:",
        "Translate the following", "Make this text shorter:", "Paraphrase:", "Edit the following sentence",
        "Classify the following", "Identify the", "Rewrite this email", "Extract the", "Turn this into",
        "Read the passage and answer the question.", "Given the text below,", "Change the sentence",
        "Add a", "Convert the following sentence", "Based on the following", "Fill in the blank:",
    ),
    "lists": (
        "List", "List three", "List five", "Give me ten", "Give me some tips", "Name three", "Name five",
        "Suggest", "Generate a list of", "Provide", "What are some", "What are the main", "Create a list",
        "Make a shopping list", "Write down", "Give two examples", "Recommend", "Outline the steps",
    ),
    "writing": (
        "Write a short story about", "Write a poem about", "Write a letter", "Write an email",
        "Write a paragraph about", "Tell me a story", "Write a dialogue", "Create a slogan",
        "Write a headline",
        "Compose", "Imagine", "Write a product description", "Write a speech", "Design", "Come up with",
        "Write a review", "Generate", "Write a tweet", "Write an introduction", "Invent", "Develop a plan",
        "Brainstorm", "Pretend you are", "Write a recipe", "Give advice", "Plan a",
    ),
}  # fmt: skip
"""By kind of task, each as likely as the others; within a kind all beginnings are."""
