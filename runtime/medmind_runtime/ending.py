"""How an answer ended, in words for the person who asked. Knows a conversation, no terminal."""

from medmind_runtime.conversation import Conversation

_ENDINGS = {
    "length": "[cut at {limit} tokens; --max-tokens allows more]",
    "context": "[cut: the context is full; /new begins anew]",
    "cancelled": "[stopped]",
    "loop": "[stopped: the answer went round in a circle; ask otherwise, or try a higher --temperature]",
    "stop": "",
}


def taken_back(conversation: Conversation) -> bool:
    """Whether the last answer was stopped before its first word."""
    reply = conversation.last
    return reply is not None and reply.finish == "cancelled" and not reply.text


def ending(conversation: Conversation) -> str:
    """What a person should know of how the last answer ended; empty when it ended by itself."""
    reply = conversation.last
    assert reply is not None
    if taken_back(conversation):
        return "[stopped before the first word; the question was taken back]"
    return _ENDINGS[reply.finish].format(limit=conversation.max_tokens)
