//! The grammar of replication commands.

use super::error::{CommandError, CommandFault, Found};
use super::lexer::{Lexer, Positioned, Token};
use super::options::{self, GivenOption, Value};
use super::{
    Command, CreateReplicationSlot, Identifier, Literal, PluginOption, SettingName, SlotChange,
};
use crate::{Lsn, TimelineId};

pub(super) fn parse(text: &[u8]) -> Result<Command, CommandError> {
    if text.len() > Command::MAX_LENGTH {
        return Err(CommandError::new(
            Command::MAX_LENGTH,
            CommandFault::TooLong,
        ));
    }
    if let Some(position) = text.iter().position(|&b| b == 0) {
        return Err(CommandError::new(position, CommandFault::Nul));
    }
    let text = match std::str::from_utf8(text) {
        Ok(text) => text,
        Err(error) => {
            return Err(CommandError::new(
                error.valid_up_to(),
                CommandFault::NotUtf8,
            ));
        }
    };
    let mut parser = Parser {
        lexer: Lexer::new(text),
        next: None,
    };
    let command = parser.command()?;
    parser.take_symbol(';')?;
    match parser.next()? {
        None => Ok(command),
        found => Err(parser.unexpected("the end of the command", found.as_ref())),
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The token that was looked at and not taken.
    next: Option<Option<Positioned<'a>>>,
}

impl<'a> Parser<'a> {
    /// A command, decided by its first word. What follows the first word of SQL is not looked
    /// at: it need not consist of our tokens.
    fn command(&mut self) -> Result<Command, CommandError> {
        let not_replication = |position| {
            let reason = CommandFault::NotReplicationCommand;
            Err(CommandError::new(position, reason))
        };
        let (position, keyword) = match self.next() {
            Ok(Some((position, Token::Word(keyword)))) => (position, keyword),
            Ok(Some((position, _))) => return not_replication(position),
            Ok(None) => return not_replication(self.lexer.position()),
            Err(error) => return not_replication(error.position),
        };
        match keyword {
            "IDENTIFY_SYSTEM" => Ok(Command::IdentifySystem),
            "SHOW" => self.setting_name().map(Command::Show),
            "TIMELINE_HISTORY" => self.timeline().map(Command::TimelineHistory),
            "CREATE_REPLICATION_SLOT" => self.create_slot(),
            "READ_REPLICATION_SLOT" => self.read_slot(),
            "ALTER_REPLICATION_SLOT" => self.alter_slot(),
            "DROP_REPLICATION_SLOT" => self.drop_slot(),
            "START_REPLICATION" => self.start_replication(),
            "BASE_BACKUP" => self.base_backup(),
            "UPLOAD_MANIFEST" => Ok(Command::UploadManifest),
            _ => not_replication(position),
        }
    }

    fn read_slot(&mut self) -> Result<Command, CommandError> {
        let position = self.peek()?.map_or(0, |(at, _)| *at);
        let name = self.setting_name()?;
        // The grammar joins names with dots here, beyond the length of a name.
        match Identifier::new(name.as_str()) {
            Ok(slot) => Ok(Command::ReadReplicationSlot(slot)),
            Err(_) => Err(CommandError::new(position, CommandFault::NameTooLong)),
        }
    }

    fn create_slot(&mut self) -> Result<Command, CommandError> {
        let slot = self.name("the name of a slot")?;
        let temporary = self.take_word("TEMPORARY")?;
        let found = self.next()?;
        let kind = match found {
            Some((_, Token::Word("PHYSICAL"))) => {
                let given = self.slot_options()?;
                options::physical_slot(given)?
            }
            Some((_, Token::Word("LOGICAL"))) => {
                let plugin = self.name("the name of an output plugin")?;
                let given = self.slot_options()?;
                options::logical_slot(plugin, given)?
            }
            _ => {
                let expected = if temporary {
                    "PHYSICAL or LOGICAL"
                } else {
                    "TEMPORARY, PHYSICAL or LOGICAL"
                };
                return Err(self.unexpected(expected, found.as_ref()));
            }
        };
        Ok(Command::CreateReplicationSlot(CreateReplicationSlot {
            slot,
            temporary,
            kind,
        }))
    }

    /// Options in parentheses (15 and later) or as keywords in a row (all versions).
    fn slot_options(&mut self) -> Result<Vec<GivenOption>, CommandError> {
        if self.take_symbol('(')? {
            return self.option_list();
        }
        let mut given = Vec::new();
        while let Some(&(position, Token::Word(word))) = self.peek()? {
            let Some((name, value)) = options::slot_keyword(word) else {
                break;
            };
            self.next()?;
            given.push(GivenOption::keyword(position, name, value));
        }
        Ok(given)
    }

    fn alter_slot(&mut self) -> Result<Command, CommandError> {
        let slot = self.name("the name of a slot")?;
        self.symbol('(', "(")?;
        let end = self.lexer.position();
        let given = self.option_list()?;
        let change = match options::altered_slot(given)? {
            (Some(failover), Some(two_phase)) => SlotChange::FailoverAndTwoPhase {
                failover,
                two_phase,
            },
            (Some(failover), None) => SlotChange::Failover(failover),
            (None, Some(two_phase)) => SlotChange::TwoPhase(two_phase),
            (None, None) => {
                let reason = CommandFault::Unexpected {
                    expected: "an option",
                    found: Found::NoValue,
                };
                return Err(CommandError::new(end, reason));
            }
        };
        Ok(Command::AlterReplicationSlot { slot, change })
    }

    fn drop_slot(&mut self) -> Result<Command, CommandError> {
        let slot = self.name("the name of a slot")?;
        let wait = self.take_word("WAIT")?;
        Ok(Command::DropReplicationSlot { slot, wait })
    }

    fn start_replication(&mut self) -> Result<Command, CommandError> {
        let slot = if self.take_word("SLOT")? {
            Some(self.name("the name of a slot")?)
        } else {
            None
        };
        if self.take_word("LOGICAL")? {
            return match slot {
                Some(slot) => self.start_logical(slot),
                // The grammar has LOGICAL with a slot only.
                None => Err(CommandError::new(
                    self.lexer.position(),
                    CommandFault::OptionNeedsOther {
                        option: "LOGICAL",
                        needed: "SLOT",
                    },
                )),
            };
        }
        self.take_word("PHYSICAL")?;
        let start = self.lsn()?;
        let timeline = if self.take_word("TIMELINE")? {
            Some(self.timeline()?)
        } else {
            None
        };
        Ok(Command::StartReplication {
            slot,
            start,
            timeline,
        })
    }

    fn start_logical(&mut self, slot: Identifier) -> Result<Command, CommandError> {
        let start = self.lsn()?;
        let mut options = Vec::new();
        if self.take_symbol('(')? {
            loop {
                let name = self.name("the name of an option")?;
                let value = self.take_literal()?;
                options.push(PluginOption { name, value });
                if !self.list_goes_on()? {
                    break;
                }
            }
        }
        Ok(Command::StartLogicalReplication {
            slot,
            start,
            options,
        })
    }

    /// Options in parentheses (15 and later) or as keywords in a row (to 14).
    fn base_backup(&mut self) -> Result<Command, CommandError> {
        let mut given = Vec::new();
        if self.take_symbol('(')? {
            given = self.option_list()?;
        } else {
            while let Some(&(position, Token::Word(word))) = self.peek()? {
                let Some((name, value)) = options::backup_keyword(word) else {
                    break;
                };
                self.next()?;
                let value = match value {
                    options::KeywordValue::Fixed(value) => value,
                    options::KeywordValue::Literal => {
                        let text = self.literal()?;
                        Some(Value::Text(text.as_str().to_owned()))
                    }
                    options::KeywordValue::Number => Some(Value::Number(self.number()?)),
                };
                given.push(GivenOption::keyword(position, name, value));
            }
        }
        options::base_backup(given).map(|backup| Command::BaseBackup(Box::new(backup)))
    }

    /// The rest of `(name [value], ...)`, whose values can be names, texts and numbers.
    fn option_list(&mut self) -> Result<Vec<GivenOption>, CommandError> {
        let mut given = Vec::new();
        loop {
            let found = self.next()?;
            let name = found
                .as_ref()
                .and_then(|(at, token)| Some((*at, token.name_or_keyword()?)));
            let Some((position, name)) = name else {
                return Err(self.unexpected("the name of an option", found.as_ref()));
            };
            let value = match self.peek()? {
                Some((_, Token::Literal(text))) => Some(Value::Text(text.as_str().to_owned())),
                Some((_, Token::Number(number))) => Some(Value::Number(*number)),
                Some((_, token)) => token.name().map(|n| Value::Text(n.as_str().to_owned())),
                None => None,
            };
            if value.is_some() {
                self.next()?;
            }
            given.push(GivenOption {
                position,
                name: name.as_str().to_owned(),
                value,
            });
            if !self.list_goes_on()? {
                return Ok(given);
            }
        }
    }

    /// Takes a comma or the parenthesis that ends a list.
    fn list_goes_on(&mut self) -> Result<bool, CommandError> {
        if self.take_symbol(',')? {
            return Ok(true);
        }
        self.symbol(')', "a value, a comma or )")?;
        Ok(false)
    }

    /// One or more names with dots between.
    fn setting_name(&mut self) -> Result<SettingName, CommandError> {
        let mut name = self.name("a name")?.as_str().to_owned();
        while self.take_symbol('.')? {
            name.push('.');
            name += self.name("a name")?.as_str();
        }
        Ok(SettingName::from_checked(name))
    }

    fn name(&mut self, expected: &'static str) -> Result<Identifier, CommandError> {
        let found = self.next()?;
        match found.as_ref().and_then(|(_, token)| token.name()) {
            Some(name) => Ok(name),
            None => Err(self.unexpected(expected, found.as_ref())),
        }
    }

    fn literal(&mut self) -> Result<Literal, CommandError> {
        match self.next()? {
            Some((_, Token::Literal(text))) => Ok(text),
            found => Err(self.unexpected("a text in single quotes", found.as_ref())),
        }
    }

    fn take_literal(&mut self) -> Result<Option<Literal>, CommandError> {
        match self.peek()? {
            Some((_, Token::Literal(_))) => self.literal().map(Some),
            _ => Ok(None),
        }
    }

    fn number(&mut self) -> Result<u32, CommandError> {
        match self.next()? {
            Some((_, Token::Number(number))) => Ok(number),
            found => Err(self.unexpected("a number", found.as_ref())),
        }
    }

    fn timeline(&mut self) -> Result<TimelineId, CommandError> {
        match self.next()? {
            Some((position, Token::Number(number))) => TimelineId::new(number)
                .ok_or(CommandError::new(position, CommandFault::InvalidTimeline)),
            found => Err(self.unexpected("a timeline", found.as_ref())),
        }
    }

    fn lsn(&mut self) -> Result<Lsn, CommandError> {
        match self.next()? {
            Some((_, Token::Lsn(lsn))) => Ok(lsn),
            found => Err(self.unexpected("a position like 16/B374D848", found.as_ref())),
        }
    }

    fn symbol(&mut self, symbol: char, expected: &'static str) -> Result<(), CommandError> {
        match self.next()? {
            Some((_, Token::Symbol(s))) if s == symbol => Ok(()),
            found => Err(self.unexpected(expected, found.as_ref())),
        }
    }

    fn take_symbol(&mut self, symbol: char) -> Result<bool, CommandError> {
        self.take_if(|token| *token == Token::Symbol(symbol))
    }

    fn take_word(&mut self, word: &str) -> Result<bool, CommandError> {
        self.take_if(|token| *token == Token::Word(word))
    }

    fn take_if(&mut self, wanted: impl Fn(&Token<'_>) -> bool) -> Result<bool, CommandError> {
        let take = self.peek()?.is_some_and(|(_, token)| wanted(token));
        if take {
            self.next()?;
        }
        Ok(take)
    }

    fn peek(&mut self) -> Result<Option<&Positioned<'a>>, CommandError> {
        if self.next.is_none() {
            self.next = Some(self.lexer.next()?);
        }
        Ok(self.next.as_ref().and_then(Option::as_ref))
    }

    fn next(&mut self) -> Result<Option<Positioned<'a>>, CommandError> {
        match self.next.take() {
            Some(token) => Ok(token),
            None => self.lexer.next(),
        }
    }

    fn unexpected(&self, expected: &'static str, found: Option<&Positioned<'a>>) -> CommandError {
        let (position, found) = match found {
            Some((position, token)) => (*position, token.found()),
            None => (self.lexer.position(), Found::End),
        };
        CommandError::new(position, CommandFault::Unexpected { expected, found })
    }
}
