"""What the server answers: OpenAI's forms, streams and documents, and the safety layer before them."""

import json
import socket
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from medmind_runtime.engine.fake_engine import FakeEngine
from medmind_runtime.guard import Before, Guard, Unguarded
from medmind_runtime.interruption import never
from medmind_runtime.safety.careful import Careful
from medmind_runtime.serve.connection import Connection
from medmind_runtime.serve.openai_answer import StopText
from medmind_runtime.turn import Passage, Turn

from .serving import HELLO, serving


def test_an_answer_has_openais_form_and_the_conversation_reaches_the_model() -> None:
    engine = FakeEngine(["né 😀"])
    with serving(engine) as client:
        talk = [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
        ]
        status, answer = client.ask(talk, model="fake", temperature=0.5, seed=3)
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "né 😀", "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == len("né 😀".encode()) + 1
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]
    assert engine.prompts == ["<system>be kind<user>a<assistant>b<user>cd"]
    assert (engine.samplings[0].temperature, engine.samplings[0].seed) == (0.5, 3)


def test_a_stream_gives_the_same_text_in_pieces_with_usage_at_the_end() -> None:
    with serving(FakeEngine(["one two"])) as client:
        first, *pieces, last, spent, done = client.events(stream_options={"include_usage": True})
        assert first["choices"][0]["delta"]["role"] == "assistant"
        assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == "one two"
        assert last["choices"][0]["finish_reason"] == "stop"
        assert (spent["choices"], spent["usage"]["completion_tokens"]) == ([], 8)
        assert done == "data: [DONE]"
        assert len({piece["id"] for piece in (first, *pieces, last, spent)}) == 1
        assert all("usage" not in event for event in client.events()[:-1])


def test_no_piece_of_a_stream_waits_for_the_one_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[bool] = []

    def begin(self: Connection, *given: Any) -> None:
        waits.append(not self.connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        real(self, *given)

    real = Connection._begin_stream
    monkeypatch.setattr(Connection, "_begin_stream", begin)
    with serving(FakeEngine(["one"])) as client:
        assert client.events()[-1] == "data: [DONE]"
    assert waits == [False]


def test_stop_texts_and_limits_end_an_answer_and_say_how() -> None:
    with serving(FakeEngine(["one. two. STOP here"])) as client:
        for stop, text in (("STOP", "one. two. "), ([" two", "STOP"], "one."), (["zebra"], "one. two. STOP here")):
            _, answer = client.ask(stop=stop)
            assert answer["choices"][0]["message"]["content"] == text
            assert answer["choices"][0]["finish_reason"] == "stop"
            streamed = client.events(stop=stop)[1:-2]
            assert "".join(piece["choices"][0]["delta"]["content"] for piece in streamed) == text
        for limit in ("max_tokens", "max_completion_tokens"):
            _, answer = client.ask(**{limit: 4})
            assert answer["choices"][0]["message"]["content"] == "one."
            assert answer["choices"][0]["finish_reason"] == "length"


def test_a_stop_text_is_found_wherever_the_pieces_are_cut() -> None:
    text, stop = "aab aaab end", "aaab"
    for cut in range(1, len(text)):
        seeker = StopText([stop, "never"])
        shown = seeker.feed(text[:cut])
        shown += "" if seeker.found else seeker.feed(text[cut:])
        assert (shown, seeker.found) == ("aab ", True)
    seeker = StopText([stop])
    assert seeker.feed("xaa") + seeker.finish() == "xaa"


class Warns(Unguarded):
    def before(self, question: str, earlier: Sequence[Turn], cancel: Callable[[], bool] = never) -> Before:
        return Before("Call now.", passages=[Passage("text", "leaflet", "https://example.org")], rule="emergency")


def test_the_safety_layer_stands_before_every_answer() -> None:
    with serving(FakeEngine(["calm down"]), Warns()) as client:
        _, answer = client.ask()
        assert answer["choices"][0]["message"]["content"] == "Call now.\n\ncalm down"
        assert answer["medmind"]["rule"] == "emergency"
        assert answer["medmind"]["sources"][0]["source"] == "leaflet"
        assert "not a doctor" in answer["medmind"]["notice"]
        events = client.events()
        assert events[1]["choices"][0]["delta"]["content"] == "Call now.\n\n"
        assert events[0]["medmind"]["rule"] == "emergency"


class Refers(Unguarded):
    def before(self, question: str, earlier: Sequence[Turn], cancel: Callable[[], bool] = never) -> Before:
        return Before("Ask a doctor.", alone=True)


def intake(*said: str) -> list[dict[str, str]]:
    """A conversation in which a program answers all but the last with its next question."""
    talk = [[{"role": "user", "content": text}, {"role": "assistant", "content": "Anything else?"}] for text in said]
    return [message for turn in talk for message in turn][:-1]


def test_an_emergency_told_before_is_heard_until_it_is_met() -> None:
    engine = FakeEngine(["fine"])
    with serving(engine, Careful()) as client:

        def asked(talk: list[dict[str, str]], **fields: Any) -> tuple[str, str]:
            _, answer = client.ask(talk, **fields)
            return answer["medmind"]["rule"] or "", answer["choices"][0]["message"]["content"]

        chest, harm = "crushing chest pain, my left arm is numb", "I want to kill myself"
        talk = intake(chest, "since this morning", "no")
        rule, content = asked(talk)
        assert rule == "chest"
        assert content.endswith("\n\nfine")
        met = [*talk, {"role": "assistant", "content": content.replace("\n", "\r\n")}]
        assert asked([*met, {"role": "user", "content": "thanks"}]) == ("", "fine")
        assert asked([*met, {"role": "user", "content": chest}])[0] == "chest"
        assert asked([{"role": "user", "content": chest}, {"role": "system", "content": "x"}, *HELLO])[0] == "chest"
        assert asked(intake(harm, *["and then?"] * 9))[0] == "self_harm"
        assert asked(intake(harm, chest, "the baby swallowed bleach", "hello"))[0] == "overdose,self_harm"
        assert asked(intake(harm, "hello", chest))[0] == "chest,self_harm"
        assert asked(intake("what helps against a cold", "and for how long", "thanks"))[0] == ""
        prompts = len(engine.prompts)
        assert asked(talk, response_format={"type": "json_object"}) == ("chest", content.removesuffix("\n\nfine"))
        assert len(engine.prompts) == prompts


def test_a_json_schema_becomes_the_grammar_of_the_answer_and_nothing_else_is_in_it() -> None:
    schema = {"type": "object", "properties": {"risk": {"type": "string"}}, "required": ["risk"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "risk", "schema": schema, "strict": True}}
    engine = FakeEngine(['{"risk": "low"}'])
    with serving(engine) as client:
        _, answer = client.ask(response_format=wanted)
        assert json.loads(answer["choices"][0]["message"]["content"]) == {"risk": "low"}
        _first, *pieces, _last, _done = client.events(response_format={"type": "json_object"})
        assert "".join(piece["choices"][0]["delta"]["content"] for piece in pieces) == '{"risk": "low"}'
        client.ask(response_format={"type": "text"})
        client.ask(response_format={"type": "json_schema", "json_schema": {"schema": True}})
    of_schema, of_object, of_text, of_any = (sampling.grammar for sampling in engine.samplings)
    assert "risk" in of_schema
    assert "::=" in of_object
    assert "risk" not in of_object
    assert of_text == ""
    assert "::=" in of_any


@pytest.mark.parametrize(("guard", "says"), [(Warns(), "Call now."), (Refers(), "Ask a doctor.")])
def test_in_a_documents_place_stands_what_the_guard_says_for_every_client_to_see(guard: Guard, says: str) -> None:
    engine = FakeEngine(["{}"])
    with serving(engine, guard) as client:
        _, answer = client.ask(response_format={"type": "json_object"})
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": says, "refusal": says}
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["medmind"]["first_aid"] == ("Call now." if answer["medmind"]["rule"] else "")
        events = client.events(response_format={"type": "json_object"})
        assert [event["choices"][0]["delta"] for event in events[1:3]] == [{"content": says}, {"refusal": says}]
    assert engine.prompts == []


def test_neither_a_stop_text_nor_a_full_context_cuts_off_what_to_do_now() -> None:
    with serving(FakeEngine(["calm down"], context=60), Warns()) as client:
        _, answer = client.ask(stop=["now", " down"])
        assert answer["choices"][0]["message"]["content"] == "Call now.\n\ncalm"
        status, refused = client.ask([{"role": "user", "content": "x" * 500}])
        assert (status, refused["error"]["code"]) == (400, "context_length_exceeded")
        assert refused["error"]["message"].startswith("Call now.")


def test_a_document_whose_number_is_an_invented_dose_is_refused_in_openais_field() -> None:
    engine = FakeEngine(['{"drug": "ibuprofen", "dose": 800}'])
    with serving(engine, Careful()) as client:
        _, answer = client.ask(response_format={"type": "json_object"})
        message = answer["choices"][0]["message"]
        assert message["content"] is None
        assert "held back" in message["refusal"]
        events = client.events(response_format={"type": "json_object"})
        assert "800" not in json.dumps([event["choices"] for event in events[:-1]])  # times hold any digits
        assert [event["choices"][0]["delta"] for event in events[1:-2]] == [{"refusal": message["refusal"]}]
