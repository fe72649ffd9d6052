//! The tree of layers, drawn as `git log --graph` draws: a column for each branch, newest first.

use crate::ops::log::Node;
use crate::store::LayerId;

/// One line for each layer, made of its drawing and `text(node)`, and lines between where branches part.
pub(super) fn draw(nodes: &[Node], text: impl Fn(&Node) -> String) -> String {
    // The layer that the branch of each column goes down to.
    let mut columns: Vec<LayerId> = Vec::new();
    let mut drawn = String::new();
    for node in nodes {
        let place = columns.iter().position(|wanted| *wanted == node.layer).unwrap_or_else(|| {
            columns.push(node.layer);
            columns.len() - 1
        });
        let marks = (0..columns.len()).map(|at| if at == place { "* " } else { "| " });
        drawn.push_str(&format!("{} {}\n", marks.collect::<String>(), text(node)));
        match node.parent {
            Some(parent) => columns[place] = parent,
            None => drop(columns.remove(place)),
        }
        if node.parent.is_none() && place < columns.len() {
            drawn.push_str(&shifted(place, columns.len() + 1));
        }
        while let Some((left, right)) = same(&columns) {
            drawn.push_str(&joined(left, right, columns.len()));
            columns.remove(right);
        }
    }
    drawn
}

/// The first two columns that go down to the same layer.
fn same(columns: &[LayerId]) -> Option<(usize, usize)> {
    columns.iter().enumerate().find_map(|(right, layer)| {
        let left = columns.iter().take(right).position(|other| other == layer)?;
        Some((left, right))
    })
}

/// The line in which column `right` goes over to column `left`: `|/`, `|_|/`; those beyond move up.
fn joined(left: usize, right: usize, columns: usize) -> String {
    let mut line = moving_up(right, columns);
    for column in left + 1..right {
        line[2 * column - 1] = '_';
    }
    line[2 * right - 1] = '/';
    line.into_iter().collect::<String>().trim_end().to_owned() + "\n"
}

/// The line after a branch that ended in column `place` of so many: those beyond move up.
fn shifted(place: usize, columns: usize) -> String {
    let line: String = moving_up(place, columns).into_iter().collect();
    line.trim_end().to_owned() + "\n"
}

/// A line in which the columns before `place` stay and those after it move to the left by one.
fn moving_up(place: usize, columns: usize) -> Vec<char> {
    let mut line = vec![' '; 2 * columns];
    for column in 0..place {
        line[2 * column] = '|';
    }
    for column in place + 1..columns {
        line[2 * column - 1] = '/';
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(letter: char) -> LayerId {
        format!("0{}", letter.to_string().repeat(25)).parse().unwrap()
    }

    fn drawn(edges: &[(char, Option<char>)]) -> Vec<String> {
        let node = |(layer, parent): &(char, Option<char>)| Node {
            layer: id(*layer),
            parent: parent.map(id),
            names: Vec::new(),
            head: false,
            current: false,
            created: None,
            argv: Vec::new(),
            own_bytes: 0,
            gone: false,
        };
        let nodes: Vec<_> = edges.iter().map(node).collect();
        let text = |node: &Node| node.layer.as_str()[1..2].to_owned();
        draw(&nodes, text).lines().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn a_row_of_layers_is_one_column() {
        let row = [('c', Some('b')), ('b', Some('a')), ('a', None)];
        assert_eq!(drawn(&row), ["*  c", "*  b", "*  a"]);
        assert_eq!(drawn(&[]), [""; 0]);
    }

    #[test]
    fn branches_join_where_they_parted() {
        let fork = [('c', Some('a')), ('b', Some('a')), ('a', None)];
        assert_eq!(drawn(&fork), ["*  c", "| *  b", "|/", "*  a"]);
        let three = [('d', Some('a')), ('c', Some('a')), ('b', Some('a')), ('a', None)];
        assert_eq!(drawn(&three), ["*  d", "| *  c", "|/", "| *  b", "|/", "*  a"]);
    }

    #[test]
    fn branches_cross_and_move_up() {
        // d and b stand on a, c on e: the branch of b passes the one of c.
        let crossed =
            [('d', Some('a')), ('c', Some('e')), ('b', Some('a')), ('e', Some('a')), ('a', None)];
        assert_eq!(drawn(&crossed), ["*  d", "| *  c", "| | *  b", "|_|/", "| *  e", "|/", "*  a"]);
        // The branch of g and h ends in the middle of others.
        let ended = [
            ('d', Some('a')),
            ('h', Some('g')),
            ('f', Some('e')),
            ('g', None),
            ('e', Some('a')),
            ('a', None),
        ];
        assert_eq!(
            drawn(&ended),
            ["*  d", "| *  h", "| | *  f", "| *  | g", "|  /", "| *  e", "|/", "*  a"]
                .map(|line| line.replace("*  | g", "* |  g"))
        );
    }

    #[test]
    fn what_lies_right_of_a_join_moves_up() {
        let mut columns = vec![id('a'), id('a'), id('e')];
        assert_eq!(same(&columns), Some((0, 1)));
        assert_eq!(joined(0, 1, columns.len()), "|/ /\n");
        columns = vec![id('a'), id('e'), id('f'), id('a'), id('g')];
        assert_eq!(same(&columns), Some((0, 3)));
        assert_eq!(joined(0, 3, columns.len()), "|_|_|/ /\n");
        columns = vec![id('b'), id('a'), id('a')];
        assert_eq!(joined(1, 2, columns.len()), "| |/\n");
    }
}
