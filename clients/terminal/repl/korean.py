"""Korean for every sentence of the REPL. A test compares it with what the modules say."""

from collections.abc import Mapping
from types import MappingProxyType

KOREAN: Mapping[str, str] = MappingProxyType(
    {
        "Chatting with {model}. /help lists the commands, Ctrl-D ends.": (
            "{model} 모델과 대화합니다. /help는 명령 목록, Ctrl-D는 끝내기."
        ),
        "There is no command /{name}; /help lists them.": (
            "/{name} 명령은 없습니다. /help로 목록을 볼 수 있습니다."
        ),
        "/regenerate        answer the last question anew": "/regenerate        마지막 질문에 다시 답하기",
        "/continue          go on with the last answer": "/continue          마지막 답변 이어 쓰기",
        "/system TEXT       set the system prompt; without TEXT, remove it": (
            "/system TEXT       시스템 프롬프트 정하기. TEXT 없이 쓰면 지우기"
        ),
        "/set NAME VALUE    set a parameter; without VALUE, leave it to the server": (
            "/set NAME VALUE    매개변수 정하기. VALUE 없이 쓰면 서버 기본값으로"
        ),
        "/show              show model, system prompt and parameters": (
            "/show              모델, 시스템 프롬프트, 매개변수 보기"
        ),
        "/model NAME        ask another model; without NAME, list them": (
            "/model NAME        다른 모델로 바꾸기. NAME 없이 쓰면 목록 보기"
        ),
        "/save FILE         keep the conversation; without FILE, where it was": (
            "/save FILE         대화 저장하기. FILE 없이 쓰면 같은 파일에"
        ),
        "/load FILE         go on with a saved conversation": (
            "/load FILE         저장한 대화 불러와 이어 가기"
        ),
        "/clear             forget the conversation": "/clear             대화 지우기",
        "/exit              end, as Ctrl-D does": "/exit              끝내기 (Ctrl-D와 같음)",
        "Alt-Enter          begin another line; pasted lines stay together": (
            "Alt-Enter          줄 바꾸기. 붙여 넣은 여러 줄은 한 번에 보냄"
        ),
        "Ctrl-C             stop the answer": "Ctrl-C             답변 멈추기",
        "Model: {model} at {url}": "모델: {model} ({url})",
        "Parameters: {values}": "매개변수: {values}",
        "the server's defaults": "서버 기본값",
        "Messages: {count}": "메시지: {count}개",
        "The last answer took {count} tokens.": "마지막 답변은 {count}토큰이었습니다.",
        "The conversation is forgotten.": "대화를 지웠습니다.",
        "System prompt: {text}": "시스템 프롬프트: {text}",
        "There is no system prompt.": "시스템 프롬프트가 없습니다.",
        "/set takes one of: {names}": "/set으로 정할 수 있는 것: {names}",
        "{name} is the server's default.": "{name} 값은 서버 기본값입니다.",
        "There is no parameter {name}; the nearest is {nearest}.": (
            "{name} 매개변수는 없습니다. 가장 비슷한 이름은 {nearest}입니다."
        ),
        "{name} takes a number, not {text}.": "{name}에는 숫자를 써야 합니다. {text}은(는) 쓸 수 없습니다.",
        "Asking {model} from now on.": "이제부터 {model} 모델이 답합니다.",
        "{name} is not offered here; there are: {offered}": (
            "{name} 모델은 이 서버에 없습니다. 있는 모델: {offered}"
        ),
        "/save needs the name of a file.": "/save 뒤에 파일 이름을 쓰십시오.",
        "/load needs the name of a file.": "/load 뒤에 파일 이름을 쓰십시오.",
        "{path} exists; choose another name.": "{path} 파일이 이미 있습니다. 다른 이름을 쓰십시오.",
        "{path} cannot be written: {reason}": "{path} 파일에 쓸 수 없습니다: {reason}",
        "{path} cannot be read: {reason}": "{path} 파일을 읽을 수 없습니다: {reason}",
        "{path} is not a saved conversation.": "{path} 파일은 저장된 대화가 아닙니다.",
        "In {path} questions and answers do not alternate.": (
            "{path} 파일에서 질문과 답변이 번갈아 나오지 않습니다."
        ),
        "Saved to {path}.": "{path} 파일에 저장했습니다.",
        "Loaded {path}: {count} messages.": "{path} 파일에서 메시지 {count}개를 불러왔습니다.",
        "That is not UTF-8: set the terminal to UTF-8.": (
            "UTF-8이 아닌 글자입니다. 터미널을 UTF-8로 바꾸십시오."
        ),
        "There is no answer yet.": "아직 답변이 없습니다.",
        "Stopped.": "멈췄습니다.",
        "The model ended without a word.": "모델이 아무 말 없이 답변을 끝냈습니다.",
        "/continue goes on with the answer.": "/continue로 답변을 이어 쓸 수 있습니다.",
        "The answer was cut: it reached the limit of tokens. /continue goes on.": (
            "토큰 한도에 이르러 답변이 잘렸습니다. /continue로 이어 쓸 수 있습니다."
        ),
        "{model} has no chat template: it continues each text by itself.": (
            "{model} 모델은 대화 템플릿이 없어 글을 하나씩 따로 이어 씁니다."
        ),
        "error: {message}": "오류: {message}",
        "No server answers at {url}, or it has ended.": "{url} 서버가 응답하지 않거나 종료되었습니다.",
        "The server at {url} broke off its answer.": "{url} 서버의 답변이 중간에 끊겼습니다.",
        "What answers at {url} does not speak OpenAI's API.": "{url} 서버는 OpenAI API를 쓰지 않습니다.",
        "A chat needs a terminal.": "대화에는 터미널이 필요합니다.",
        "The server at {url} offers no model.": "{url} 서버에 쓸 수 있는 모델이 없습니다.",
    }
)
